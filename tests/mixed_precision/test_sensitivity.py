"""What one group loses, measured on the part of the graph behind it, is what the whole graph loses."""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import ModeKind, RangeMethod, SampleRateMismatch
from pipeline.config.mode_settings import StaticConfig
from pipeline.config.settings import EvaluationConfig
from pipeline.data.audio_files import read_audio
from pipeline.data.datasets import EvaluationSample
from pipeline.data.utterance_sets import utterances_in
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.prepare import prepare
from pipeline.graph.shorten_samples import cropped
from pipeline.graph.source_graph import load_graph
from pipeline.graph.subgraph import downstream_of
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.cost_model import kernel_savings
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.mixed_precision.sensitivity import samples_needed, sensitivities
from pipeline.models.ctc import Ctc
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.matcha import Matcha
from pipeline.models.onnx_file import OnnxFile
from pipeline.models.vocoder import Vocoder
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample
from tests.conftest import SHIPPED

STATIC = StaticConfig(
    name="auto", kind=ModeKind.static, op_types=["Conv", "MatMul", "Gemm"], method=RangeMethod.percentile, percentile=99.99,
    dynamic_op_types=[], weight_only_op_types=[], min_channels=1, fold_batch_norm=False, cross_layer_equalization=False,
)  # fmt: skip
MODELS = {
    "vocoder": (Vocoder, EvaluationKind.audio, "log_mel_l1"),
    "asr": (Ctc, EvaluationKind.asr, "posterior_kl"),
    "matcha": (Matcha, EvaluationKind.tts, "log_mel_l1"),
}


@dataclasses.dataclass
class Lab:
    """A model that ships, with a builder of its quantized graphs and a evaluator of what they lose."""

    builder: Builder
    evaluator: LossEvaluator
    on_eight_parts: Callable[[], LossEvaluator]  # of samples, as a search scores single nodes


@pytest.fixture(scope="module")
def lab(repo):
    """Return a function: model -> its laboratory, made once."""
    made = {}

    def make(name):
        if name not in made:
            adapter, kind, metric = MODELS[name]
            file, graph = SHIPPED[name]
            model = adapter(name, str(repo / file))
            source = load_graph(graph, str(repo / file))
            sets = {"asr": "data/clips", "vocoder": "data/voice"}
            where = repo / (f"{sets[name]}/calibration/manifest.jsonl" if name in sets else "data/sentences/calibration.jsonl")

            def read(path: Path, rate: int):
                return read_audio(path, rate, SampleRateMismatch.resample, [])

            found = islice(utterances_in(where, "calibration.path", lambda *_: None), 12)
            ordered = sorted((model.sample(utterance, read) for utterance in found), key=lambda sample: sample.size)
            samples = ordered[:2]
            prepared = prepare(source, opset=None, needed_opset=13, preprocess=True)
            groups, _ = groups_of(prepared, STATIC)
            builder = Builder(prepared.model, groups, STATIC, samples, lambda m: cached_statistics(m, samples), threads=1)
            loaded = LoadedModel(model, {graph: source}, threads=1)

            def scored_on(given):
                items = [EvaluationSample(sample) for sample in given]
                return LossEvaluator(loaded, graph, items, EvaluationConfig(kind=kind), metric, seed=0)

            parts = partial(cropped, source.model, ordered[:8], 0.1, 32)
            made[name] = Lab(builder, scored_on(samples[:1]), lambda: scored_on(parts()))
        return made[name]

    return make


@pytest.mark.parametrize("name", list(MODELS))
def test_the_part_behind_a_group_gives_the_loss_of_the_whole_graph(lab, name):
    here = lab(name)
    some = here.builder.groups[:: len(here.builder.groups) // 2]
    wanted = [(group.name, precision) for group in some for precision in group.precisions]
    found = sensitivities(here.builder, here.evaluator, wanted, threads=1)
    assert set(found) == set(wanted)
    for (group, precision), loss in found.items():
        whole = here.evaluator.loss(here.builder.build({group: precision})).loss
        assert loss == pytest.approx(max(whole, 0.0), rel=0.05, abs=1e-5), (group, precision.name)


def test_what_is_not_measured_in_time_is_left_out(lab):
    here = lab("vocoder")
    wanted = [(group.name, Precision.weight_int8) for group in here.builder.groups]
    assert sensitivities(here.builder, here.evaluator, wanted, threads=1, until=0.0) == {}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_float_graph_loses_nothing_against_the_original(lab, name):
    """It is equalised, which is exact but for the rounding of float32."""
    found = lab(name).evaluator.loss(lab(name).builder.build({}))
    assert abs(found.loss) < 1e-3
    assert found.length_change == 0


def test_steps_of_a_flow_that_share_their_weights_are_decided_together(lab):
    shared = [group for group in lab("matcha").builder.groups if len(group.nodes) == 3]
    assert len(shared) > 20, "three unrolled Euler steps"
    choice = {shared[0].name: Precision.static_int8}
    assert lab("matcha").builder.build(choice).ByteSize() < lab("matcha").builder.model.ByteSize()


def test_the_part_behind_a_node_holds_nothing_that_comes_before_it(lab):
    model = lab("vocoder").builder.model
    last = [node for node in model.graph.node if node.op_type == "MatMul"][-1]
    part, inputs = downstream_of(model, [last.name])
    assert [node.name for node in part.graph.node if node.op_type == "MatMul"] == [last.name]
    assert last.input[0] in inputs


def test_every_group_gains_bytes_in_every_precision_and_a_time_is_known(lab):
    here = lab("vocoder")
    found = kernel_savings(here.builder, here.evaluator.calls[0][0].sample, threads=1, layouts=())
    assert set(found) == {(group.name, precision) for group in here.builder.groups for precision in group.precisions}
    assert all(gain.ms_among_integers >= gain.ms for gain in found.values()), "conversions take time"
    stored = [gain for (_, precision), gain in found.items() if precision is Precision.weight_int8]
    assert stored, "what is stored as integers"
    assert all(gain.ms_among_integers == gain.ms for gain in stored), "is made floats whatever its neighbours are"
    largest = max(found, key=lambda key: found[key].bytes_saved)
    assert found[largest].bytes_saved > 100_000


def test_where_the_time_is_short_what_computes_most_is_measured_first(lab):
    here = lab("vocoder")
    found = kernel_savings(here.builder, here.evaluator.calls[0][0].sample, threads=1, layouts=(), until=0.0)
    [measured] = {group for group, _ in found}
    values = {tensor.name: np.prod(tensor.dims) for tensor in here.builder.model.graph.initializer}
    sizes = {group.name: values[group.weight] for group in here.builder.groups}  # all of them see each frame once
    assert sizes[measured] == max(sizes.values())


COLLECTED = """collected (float[1, 8, n] x) => (float[1, 8, n] y, float[1, 8, m] z) {
    [before] a = Conv <pads = [1, 1]> (x, w)
    parts = SplitToSequence <axis = 2> (a, ones)
    b = ConcatFromSequence <axis = 2> (parts)
    r = Relu (b)
    [behind] y = Conv <pads = [1, 1]> (r, v)
    [beside] c = Conv <pads = [1, 1]> (x, v)
    d = ReduceMean <axes = [2]> (c)
    more = SequenceInsert (parts, d)
    z = ConcatFromSequence <axis = 2> (more)
}"""


def test_groups_behind_a_sequence_of_tensors_are_measured_too(build, make_weight, source_of):
    """Regulating lengths collects frames in a Loop, as a sequence that cannot be handed to a part of the graph."""
    weights = {"w": make_weight(8, 8, 3), "v": make_weight(8, 8, 3, seed=1)}
    source = source_of(build(COLLECTED, ones=np.array(1), **weights))
    rng = np.random.default_rng(0)
    samples = [Sample(f"s{k}", {"x": rng.standard_normal((1, 8, 12)).astype(np.float32)}) for k in range(2)]
    prepared = prepare(source, opset=None, needed_opset=13, preprocess=True)
    groups, _ = groups_of(prepared, STATIC)
    builder = Builder(prepared.model, groups, STATIC, samples, lambda m: cached_statistics(m, samples), threads=1)
    loaded = LoadedModel(OnnxFile("onnx", str(source.path)), {"model": source}, threads=1)
    items = [EvaluationSample(sample) for sample in samples]
    evaluator = LossEvaluator(loaded, "model", items, EvaluationConfig(kind=EvaluationKind.tensors), "relative_error", seed=0)
    wanted = [(group.name, Precision.static_int8) for group in groups]
    losses = sensitivities(builder, evaluator, wanted, threads=1)
    assert set(losses) == set(wanted)
    assert all(0 < loss < 0.1 for loss in losses.values())


def test_as_many_samples_are_taken_as_tell_groups_apart():
    rng = np.random.default_rng(0)
    level = rng.exponential(1.0, (20, 1))
    hard = rng.lognormal(0.0, 1.0, 16)  # of some samples every group loses ten times as much: that says nothing of their order

    def needed(noise):
        return samples_needed([tuple(row) for row in level * hard * rng.lognormal(0.0, noise, (20, 16))], 16)

    assert needed(0.01) == 2
    assert needed(0.25) in range(5, 9)
    assert needed(2.0) == 16
    assert samples_needed([(), ()], 16) is None, "a metric that is no mean over samples"
    assert samples_needed([(0.1, 0.2)] * 20, 2) is None, "all of two"


def test_losses_on_fewer_samples_order_groups_as_all_do(lab):
    here = lab("vocoder")
    shorter = here.on_eight_parts()
    wanted = [(group.name, Precision.static_int8) for group in here.builder.groups]
    quick = sensitivities(here.builder, shorter, wanted, threads=1)
    full = {key: shorter.loss(here.builder.build({key[0]: key[1]})).loss for key in wanted}
    assert scipy.stats.spearmanr([quick[key] for key in wanted], [full[key] for key in wanted]).statistic > 0.9
