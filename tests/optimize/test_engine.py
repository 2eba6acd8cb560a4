"""Rewrites are kept where they are exact and faster, and refused with a reason; on small graphs and on the models that ship."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_graphs import graph_of, op_types

from pipeline.graph.graph_editor import Graph
from pipeline.measure.rewrite_gain import Gain, measure_gain
from pipeline.models.ctc import Ctc
from pipeline.models.vocoder import Vocoder
from pipeline.optimize import engine
from pipeline.optimize.equivalence import LIMIT, Reference
from pipeline.optimize.outcome import Outcome, Refusal, Sites
from pipeline.optimize.rewrite_registry import REWRITES, Exactness, Rewrite
from pipeline.optimize.rules import decompose_mish
from pipeline.sample import Sample

REPO = Path(__file__).resolve().parents[2]
REAL = REPO.parent / "shared" / "real" / "cases"
MISH = "(float[n] x) => (float[n] y) { s = Softplus(x) t = Tanh(s) p = Pow(t, two) y = Mul(x, p) }"


def always(before, after, probe, threads):
    return Gain(1.5, True)


def never(before, after, probe, threads):
    return Gain(0.9, False)


def small():
    return graph_of(MISH, two=np.array(2.0, np.float32)), [Sample("a", {"x": np.linspace(-5, 5, 64, dtype=np.float32)})]


def test_what_is_exact_and_faster_is_kept():
    model, probe = small()
    done = engine.apply(model, probe, measure=always)
    assert [(applied.name, applied.sites, applied.speedup) for applied in done.applied] == [
        ("decompose_mish", 1, 1.5),
        ("strength_reduction", 1, 1.5),
    ]
    assert all(applied.max_difference < 1e-6 for applied in done.applied)
    assert not {"Softplus", "Pow"} & set(op_types(done.model))
    assert {name for name, _ in done.rejected} == {r.name for r in REWRITES} - {"decompose_mish", "strength_reduction"}


def test_what_is_slower_is_not():
    model, probe = small()
    done = engine.apply(model, probe, measure=never)
    assert not done.applied
    assert done.model is model
    assert dict(done.rejected)["decompose_mish"] == "not faster here: 0.90 times the speed at 1 places"


def test_what_was_slower_is_tried_again_once_others_are_there():
    model, probe = small()

    def mish_needs_square(before, after, probe, threads):
        return Gain(1.1, "Pow" not in op_types(after))

    done = engine.apply(model, probe, measure=mish_needs_square)
    assert [applied.name for applied in done.applied] == ["strength_reduction", "decompose_mish"]


def test_what_takes_little_away_is_timed_together():
    model = graph_of(
        "(float[n,4] x) => (float[n,6] y) { p = Pow(x, two) m = MatMul(p, w) y = Mul(m, half) }",
        two=np.array(2.0, np.float32),
        half=np.array(0.5, np.float32),
        w=np.ones((4, 6), np.float32),
    )
    probe = [Sample("a", {"x": np.ones((3, 4), np.float32)})]
    done = engine.apply(model, probe, measure=always)
    assert {(applied.name, tuple(applied.together)) for applied in done.applied} == {
        ("strength_reduction", ("strength_reduction", "fold_mul_into_weights")),
        ("fold_mul_into_weights", ("strength_reduction", "fold_mul_into_weights")),
    }

    def only_without_mul_by_half(before, after, probe, threads):
        return Gain(1.1, op_types(after) == ["Pow", "MatMul"])

    done = engine.apply(model, probe, measure=only_without_mul_by_half)
    assert [(applied.name, applied.together) for applied in done.applied] == [("fold_mul_into_weights", [])]


def test_what_is_not_exact_is_refused(monkeypatch):
    model, probe = small()

    def wrong(graph: Graph) -> Outcome:
        node = next((node for node in graph.nodes if node.op_type == "Softplus"), None)
        if node is None:
            return Refusal("no Softplus")
        graph.remove(node)
        graph.add_node("Relu", list(node.input), node.output[0], name=node.name)
        return Sites(1)

    monkeypatch.setattr(engine, "REWRITES", (Rewrite("wrong", wrong, "is wrong", Exactness.algebraic),))
    done = engine.apply(model, probe, measure=always)
    assert not done.applied
    assert "of the output's scale, more than 1e-04" in dict(done.rejected)["wrong"]


def test_only_those_that_are_asked_for():
    model, probe = small()
    done = engine.apply(model, probe, only=["strength_reduction"], measure=always)
    assert [applied.name for applied in done.applied] == ["strength_reduction"]
    with pytest.raises(KeyError):
        engine.apply(model, probe, only=["sqare"], measure=always)


def test_timing_tells_a_much_faster_graph():
    model, _ = small()
    probe = [Sample("a", {"x": np.linspace(-5, 5, 1 << 16, dtype=np.float32)})]
    graph = Graph(model)
    decompose_mish.rewrite(graph)
    gain = measure_gain(model, graph.finish(), probe, min_pairs=30, max_seconds=0.1)
    assert gain.pairs >= 30
    assert gain.speedup > 0


def test_a_model_that_is_unlike_itself_is_given_its_own_rounding():
    chaotic = graph_of("(float[n] x) => (float[n] y) { big = Mul(x, huge) y = Sin(big) }", huge=np.array(1e4, np.float32))
    reference = Reference(chaotic, [Sample("a", {"x": np.linspace(0.1, 1, 64, dtype=np.float32)})])
    assert reference.limit(1e-5) == LIMIT
    assert reference.limit(2e-4) > 2e-4
    assert reference.limit(float("inf")) == LIMIT


def mels():
    rng = np.random.default_rng(0)
    recording = np.cumsum(rng.standard_normal(256 * 40)).astype(np.float32)
    return Vocoder("vocoder", "").mel(recording / np.abs(recording).max())


def tokens():
    lines = (REPO / "data/sentences/evaluation.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    for line in lines:
        ids = json.loads(line)["tokens"]
        scales = {"noise_scale": np.array([0.667], np.float32), "length_scale": np.ones(1, np.float32)}
        yield Sample("t", {"x": np.array([ids]), "x_length": np.array([len(ids)]), **scales})


def shipped():
    speech = np.sin(np.cumsum(np.linspace(0.02, 0.3, 16_000))).astype(np.float32)
    return {
        "matcha/model-steps-3.onnx": (
            list(tokens()),
            {
                "decompose_mish": 42,
                "deduplicate_shape_ops": 75,
                "fold_static_dims": 209,
                "materialize_reshape_shape": 123,
                "strength_reduction": 31,
                "fuse_layer_norm": 10,
                "conv1x1_to_matmul": 36,
                "drop_redundant_masks": 22,
                "mul_add_to_batch_norm": 39,
                "conv_transpose_to_conv": 3,
            },
        ),
        "vocoder/vocos.onnx": ([Sample("m", {"mels": mels()[None]})], {"fold_mul_into_weights": 7, "conv1d_to_conv2d": 7}),
        "hifigan/hifigan.onnx": (
            [Sample("m", {"mel": mels()[None]})],
            {"conv1d_to_conv2d": 34, "keep_nchwc_layout": 19, "conv_transpose_to_conv": 3},
        ),
        "asr/model.onnx": (
            [Ctc("asr", "").sample_of_audio("s", speech)],
            {
                "deduplicate_shape_ops": 12,
                "fold_static_dims": 36,
                "fold_mul_into_weights": 10,
                "conv1x1_to_matmul": 10,
                "conv1d_to_conv2d": 5,
                "materialize_reshape_shape": 11,
            },
        ),
    }


@pytest.mark.parametrize("file", list(shipped()))
def test_a_model_that_ships_computes_the_same(file):
    probe, sites = shipped()[file]
    model = onnx.load(REPO / "data/models" / file)
    done = engine.apply(model, probe, measure=always, assume=True)
    onnx.checker.check_model(done.model)
    assert not [reason for _, reason in done.rejected if "differs" in reason]
    assert {applied.name: applied.sites for applied in done.applied}.items() >= sites.items()
    assert max(applied.max_difference for applied in done.applied) <= LIMIT
    assert [i.name for i in done.model.graph.input] == [i.name for i in model.graph.input]
    assert done.model.metadata_props == model.metadata_props


@pytest.mark.parametrize(
    ("case", "sites"),
    [
        ("hifigan_v2", {"conv1d_to_conv2d": 74, "time_to_channels": 13, "keep_nchwc_layout": 33, "conv_transpose_to_conv": 4}),
        (
            "gtcrn_simple",
            {"scatter_nd_to_concat": 18, "fuse_batch_norm": 11, "strength_reduction": 12, "conv_transpose_to_conv": 11},
        ),
        ("spelling_cnn", {}),
    ],
)
def test_a_real_case_computes_the_same(case, sites):
    folder = REAL / case
    if not folder.is_dir():
        pytest.skip(f"no {folder}: real cases made elsewhere, for development only")
    arrays = np.load(folder / "calib.npz")
    first = arrays.files[0].rsplit("/", 1)[0]
    sample = {name.rsplit("/", 1)[1]: arrays[name] for name in arrays.files if name.startswith(f"{first}/")}
    if case == "hifigan_v2":
        sample = {"mel": sample["mel"][..., :40]}
    done = engine.apply(onnx.load(folder / "model.onnx"), [Sample(first, sample)], measure=always)
    assert not [reason for _, reason in done.rejected if "differs" in reason]
    assert {applied.name: applied.sites for applied in done.applied}.items() >= sites.items()
