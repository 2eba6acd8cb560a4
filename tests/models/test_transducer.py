"""A transducer is three graphs and a search: words come out, and each graph sees what the one before it has made."""

import numpy as np
import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.models.model_sessions import Call, ModelSessions, traced
from pipeline.models.transducer import Transducer
from pipeline.paths import resolve_path
from pipeline.sample import Sample


def frames(*tokens):
    """Return features whose frames stand for these tokens."""
    return Sample("s", {"x": np.eye(80, dtype=np.float32)[list(tokens)][None], "x_lens": np.array([len(tokens)])})


@pytest.fixture
def model(transducer_dir):
    """Return the small transducer."""
    return Transducer("t", dir=str(transducer_dir))


@pytest.fixture
def ensemble(model):
    """Return its graphs, ready to run."""
    return ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)


def test_the_fp32_graphs_of_a_directory_are_found(model):
    assert [resolve_path(path).name for path in model.graphs.values()] == [
        f"{part}-epoch-99-avg-1.onnx" for part in ("encoder", "decoder", "joiner")
    ]
    model.check()


def test_the_search_says_each_token_once_and_drops_blanks(model, ensemble):
    outputs = model.infer(frames(0, 1, 1, 0, 2, 3), ensemble.runner([0]))
    assert outputs["tokens"].tolist() == [1, 2, 3]
    assert model.transcript(outputs) == "ab c"


def test_frames_beyond_the_length_are_not_heard(model, ensemble):
    sample = frames(1, 2, 3)
    sample.inputs["x_lens"] = np.array([2])
    assert model.infer(sample, ensemble.runner([0]))["tokens"].tolist() == [1, 2]


def test_the_decoder_looks_back_at_two_tokens_and_runs_only_after_a_new_one(model, ensemble):
    calls: list[Call] = []
    model.infer(frames(0, 1, 0, 2, 3), ensemble.runner([0], calls))
    looked = [call.sample.inputs["y"].tolist() for call in calls if call.graph == "decoder"]
    assert looked == [[[0, 0]], [[0, 1]], [[1, 2]], [[2, 3]]]


def test_samples_of_the_joiner_are_what_the_search_gives_it_frame_by_frame(model, ensemble):
    samples = traced(ensemble, model.infer, [frames(1, 2), frames(3)], 0, "joiner")
    assert len(samples) == 3
    assert {name: array.shape for name, array in samples[0].inputs.items()} == {"encoder_out": (1, 4), "decoder_out": (1, 4)}


def test_without_a_directory_there_is_no_transducer():
    with pytest.raises(ModelError, match=r"model\.dir: not set"):
        _ = Transducer("t").graphs


def test_a_directory_that_lacks_a_part_is_refused_with_what_it_holds(transducer_dir):
    for file in transducer_dir.glob("joiner*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no joiner: no file joiner-\*\.onnx.*It holds decoder"):
        _ = Transducer("t", dir=str(transducer_dir)).graphs


@pytest.mark.parametrize("tokens", ["<blk> 0\na 1\n", "<blk> 0\na 1\nb 2\nc 3\nd 4\n"])
def test_a_token_table_of_another_size_is_refused(transducer_dir, tokens):
    (transducer_dir / "tokens.txt").write_text(tokens, encoding="utf-8")
    with pytest.raises(ModelError, match=r"4 classes, but its tokens\.txt has [25]"):
        Transducer("t", dir=str(transducer_dir)).check()


def test_metadata_that_contradicts_the_table_is_refused(transducer_dir):
    path = transducer_dir / "decoder-epoch-99-avg-1.onnx"
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"context_size": "2", "vocab_size": "500"})
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"vocab_size=500, but tokens\.txt has 4"):
        Transducer("t", dir=str(transducer_dir)).check()


def test_a_streaming_model_is_refused_with_what_to_do(transducer_dir, build):
    text = "g (float[N, T, 80] x, float[1, 9] cached_key_0) => (float[N, T, 80] encoder_out) { [a] encoder_out = Relu (x) }"
    onnx.save(build(text), transducer_dir / "encoder-epoch-99-avg-1.onnx")
    with pytest.raises(ModelError, match=r"cached_key_0.*model=onnx"):
        Transducer("t", dir=str(transducer_dir)).check()


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_the_command_quantizes_each_graph_and_reports_the_words(run_quickly, transducer_dir, mode):
    run = run_quickly(
        "model=zipformer_transducer", f"model.dir={transducer_dir}", f"mode={mode}", "stages=[load,inspect,quantize,evaluate]",
        "evaluation.samples=2", *(["calibration.samples=2"] if mode == "static" else []),
    ).succeeded()  # fmt: skip
    assert [artifact["file"] for artifact in run.report["artifacts"]] == [
        f"{part}-epoch-99-avg-1.int8.onnx" for part in ("encoder", "decoder", "joiner")
    ]
    assert set(run.report["evaluation"]["metrics"]) >= {"wer_percent", "cer_percent", "mse"}
    assert "joiner.logit" in run.report["evaluation"]["outputs"]
    assert set(run.report["inspect"]) == {"encoder", "decoder", "joiner"}


def test_a_graph_can_have_a_mode_of_its_own(run_quickly, transducer_dir):
    run = run_quickly(
        "model=zipformer_transducer", f"model.dir={transducer_dir}", "mode=dynamic", "+mode@graph_modes.joiner=fp16",
        "stages=[load,quantize]", "evaluation.samples=1",
    ).succeeded()  # fmt: skip
    assert [artifact["file"] for artifact in run.report["artifacts"]] == [
        "encoder-epoch-99-avg-1.int8.onnx", "decoder-epoch-99-avg-1.int8.onnx", "joiner-epoch-99-avg-1.fp16.onnx",
    ]  # fmt: skip


def test_a_mode_of_a_graph_that_the_model_has_not_is_refused_with_the_nearest(run_quickly, transducer_dir):
    run = run_quickly(
        "model=zipformer_transducer", f"model.dir={transducer_dir}", "mode=dynamic", "+mode@graph_modes.joinr=fp16",
        "stages=[load,quantize]", "evaluation.samples=1",
    )  # fmt: skip
    assert run.exit_code == 2
    assert "graph_modes.joinr" in run.stderr
    assert "Did you mean joiner?" in run.stderr
