"""A model that feeds states back is judged as it runs: over calls that follow each other, with the states of its own."""

import numpy as np
import pytest

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.rollout import Rollout
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.session import infer, open_session
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.onnx_file import OnnxFile
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample

RECURRENT = """g (float[1, 16] x, float[1, 16] state) => (float[1, 16] y, float[1, 16] new_state) {
    kept = Mul (state, decay)
    given = MatMul (x, w)
    new_state = Add (kept, given)
    y = Tanh (new_state)
}"""


@pytest.fixture
def evaluated(source_of, run_directory):
    """Return a function: a model, another one, samples -> the evaluation."""

    def run(before, after, samples):
        source, other = source_of(before), source_of(after, "other")
        model = LoadedModel(OnnxFile("onnx", str(source.path)), {"model": source}, threads=1)
        artifact = Artifact("model", other.path, "", 1, 1, {}, (), {})
        config = EvaluationConfig(kind=EvaluationKind.tensors)
        items = [EvaluationSample(sample) for sample in samples]
        return evaluate(model, {"model": artifact}, items, config, run_directory, RunLog(), seed=0)

    return run


@pytest.fixture
def recurrent(build, make_weight):
    """Return a leaky integrator; an error of its decay grows from call to call."""
    return lambda decay: build(RECURRENT, w=make_weight(16, 16), decay=np.float32(decay))


def chunks(count, states=None):
    rng = np.random.default_rng(0)
    zero = np.zeros((1, 16), np.float32)
    return [
        Sample(f"s{n}", {"x": rng.standard_normal((1, 16)).astype(np.float32), "state": zero if states is None else states[n]})
        for n in range(count)
    ]


def test_an_error_of_a_state_grows_over_the_calls_and_the_figure_of_one_call_stands_beside(evaluated, recurrent):
    found = evaluated(recurrent(0.99), recurrent(0.9), chunks(12))
    assert found.states == {"new_state": "state"}
    assert found.rolled_out == 11
    after_two, at_the_end = (found.per_sample[n]["fidelity"]["relative_error"] for n in (1, 11))
    assert at_the_end > 1.5 * after_two
    assert found.outputs["new_state"]["relative_error"] > 1.5 * found.one_call["new_state"]["relative_error"] > 0


def test_both_models_start_each_recorded_stream_from_its_own_beginning(evaluated, recurrent):
    exact, other = recurrent(0.99), recurrent(0.9)
    recorded, session = [], open_session(exact)
    for _ in range(2):
        state = np.zeros((1, 16), np.float32)
        for sample in chunks(3):
            recorded.append(Sample(f"r{len(recorded)}", {**sample.inputs, "state": state}))
            state = infer(session, recorded[-1])["new_state"]
    found = evaluated(exact, other, recorded)
    assert found.rolled_out == 4
    first, second = (found.per_sample[n]["fidelity"] for n in (0, 3))
    assert first["relative_error"] == second["relative_error"] == 0


def test_a_cache_that_grows_is_taken_from_the_samples(evaluated, build, make_weight):
    net = build(
        "g (float[1, 1, 4] x, float[1, n, 4] cache) => (float[1, m, 4] y, float[1, m, 4] new_cache) {"
        "new_cache = Concat <axis = 1> (cache, x) y = MatMul (new_cache, w) }",
        w=make_weight(4, 4),
    )
    rows = [Sample(f"s{n}", {"x": np.ones((1, 1, 4), np.float32), "cache": np.ones((1, 3, 4), np.float32)}) for n in range(3)]
    found = evaluated(net, net, rows)
    assert found.states == {"new_cache": "cache"}
    assert found.rolled_out == 0
    assert found.one_call == {}


def test_without_states_nothing_is_rolled_out():
    rollout = Rollout({}, chunks(2))
    assert rollout.samples(1, chunks(2)[1])[0].id == "s1"
    assert rollout.rolled_out == 0


def test_states_that_the_original_does_not_run_on_are_left_out(evaluated, build):
    net = build(
        """g (float[1, 4] x, int64[1] position) => (float[1, 4] y, int64[1] new_position) {
            row = Gather (table, position)  y = Add (x, row)  new_position = Add (position, one)
        }""",
        table=np.zeros((2, 4), np.float32), one=np.array([1]),
    )  # fmt: skip
    rows = [Sample(f"s{n}", {"x": np.ones((1, 4), np.float32), "position": np.array([0])}) for n in range(3)]
    found = evaluated(net, net, rows)
    assert found.rolled_out == 1  # the third would read a third row of the table
