"""The choice among rewrites on shorter inputs, within a budget of time."""

import numpy as np
import onnx
from small_graphs import graph_of, op_types
from test_engine import REPO, always, mels, small, tokens

from pipeline.graph.graph_editor import Graph
from pipeline.graph.shorten_samples import LEAST, shorten
from pipeline.optimize import engine
from pipeline.optimize.outcome import Outcome, Refusal, Sites
from pipeline.optimize.rewrite_registry import Exactness, Rewrite
from pipeline.sample import Sample


def test_a_vocoder_is_given_the_beginning_of_its_mels():
    model = onnx.load(REPO / "data/models/hifigan/hifigan.onnx")
    mel = np.tile(mels()[None], (1, 1, 60))
    [short] = shorten(model, [Sample("m", {"mel": mel})])
    length = short.inputs["mel"].shape[2]
    assert LEAST <= length < mel.shape[2]
    assert np.array_equal(short.inputs["mel"], mel[..., :length])


def test_a_model_whose_inputs_belong_together_is_given_all_of_them():
    probe = list(tokens())
    short = shorten(onnx.load(REPO / "data/models/matcha/model-steps-3.onnx"), probe)
    assert all(given is whole for given, whole in zip(short, probe, strict=True))


def test_a_change_that_is_wrong_beyond_the_beginning_is_taken_back(monkeypatch):
    """The beginning decides what is tried further; the whole decides what is kept."""
    model = graph_of(
        "(float[1,4,t] x) => (float[1,4,u] y) { a = Conv(x, w) b = Softplus(a) y = Tanh(b) }", w=np.ones((4, 4, 1), np.float32)
    )
    x = np.full((1, 4, 1000), -20, np.float32)
    x[..., 500:] = 1

    def cut(graph: Graph) -> Outcome:
        node = next((node for node in graph.nodes if node.op_type == "Tanh"), None)
        if node is None:
            return Refusal("no Tanh")
        graph.remove(node)
        graph.add_node("Relu", list(node.input), node.output[0], name=node.name)
        return Sites(1)

    monkeypatch.setattr(engine, "REWRITES", (Rewrite("cut", cut, "is right where x is small", Exactness.algebraic),))
    monkeypatch.setattr(engine, "shorten", lambda model, probe, threads: [Sample("a", {"x": x[..., :100]})])
    done = engine.apply(model, [Sample("a", {"x": x})], measure=always)
    assert not done.applied
    assert "Tanh" in op_types(done.model)
    assert "of the output's scale" in dict(done.rejected)["cut"]


def test_no_rewrite_is_begun_when_the_time_is_over():
    model, probe = small()
    done = engine.apply(model, probe, measure=always, max_seconds=0)
    assert not done.applied
    assert dict(done.rejected)["decompose_mish"] == "not tried: the 0 s for rewrites were used up"
