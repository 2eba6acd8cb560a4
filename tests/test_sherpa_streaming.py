"""The real client and streaming Zipformers: the same tokens chunk by chunk, in fp32 and quantized."""

from itertools import islice

import numpy as np
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.graph.source_graph import load_graph
from pipeline.metrics.text_metrics import wer_percent
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.streaming_zipformer import StreamingZipformer
from tests.streaming_graphs import write_streaming, write_streaming_ctc
from tests.test_sherpa_onnx import client

pytest.importorskip("sherpa_onnx", reason="needs the extra test")

CLIPS = 4
MAX_DIFFERENT = 10.0  # percent of the tokens


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


def said(model, sessions, clips):
    """Return the tokens that the pipeline finds in clips, as the client names them."""
    found = [model.infer(model.sample(clip, reader), sessions.runner([0]))["tokens"] for clip in clips]
    return [" ".join(model.tokens[token].replace("\u2581", " ") for token in one) for one in found]


def followed(folder, loader, files, tokens, clips):
    job = {
        "task": "follow", "loader": loader, "files": {name: str(path) for name, path in files.items()}, "tail_s": 0.66,
        "tokens": str(tokens), "audio": [str(clip.audio) for clip in clips],
    }  # fmt: skip
    return client(folder, job)["tokens"].tolist()


@pytest.mark.parametrize("kind", ["transducer", "ctc", "static", "shipped"])
def test_a_streaming_zipformer_says_the_same_tokens(repo, run_in, tmp_path, kind):
    if kind == "shipped":
        folder = repo / "data/models/streaming_zipformer"
    else:
        folder = (write_streaming_ctc if kind == "ctc" else write_streaming)(tmp_path / "model")
    model = StreamingZipformer("s", dir=str(folder))
    graphs = {name: load_graph(name, path) for name, path in model.graphs.items()}
    files = {name: graph.path for name, graph in graphs.items()}
    clips = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), CLIPS))
    if kind == "static":
        run = run_in(
            tmp_path, "model=streaming_zipformer", f"model.dir={folder}", "model.batch=1", "mode=static",
            "calibration.samples=2", "evaluation.samples=4", "evaluation.silent_clips=0", "stages=[load,quantize,evaluate]",
        ).succeeded()  # fmt: skip
        made = {artifact["graph"]: run.directory / artifact["file"] for artifact in run.report["artifacts"]}
        assert set(made) == {"encoder", "joiner"}
        assert any("decoder: stays float" in note for note in run.report["notes"])
        files |= made
        evaluation = run.report["evaluation"]
        assert evaluation["steps"] > 3 * evaluation["samples"]
        assert {"encoder.encoder_out", "joiner.logit"} <= set(evaluation["outputs"])
        assert evaluation["states"]["encoder.new_cached_key_1"] == "encoder.cached_key_1"
        assert set(evaluation["one_call"]) <= {name for name in evaluation["outputs"] if name.startswith("encoder.")}
    ours = said(model.with_graphs(graphs), ModelSessions(files, 1), clips)
    loader, given = ("from_zipformer2_ctc", {"model": files["encoder"]}) if kind == "ctc" else ("from_transducer", files)
    theirs = followed(tmp_path, loader, given, folder / "tokens.txt", clips)
    assert len(set(" ".join(ours).split())) > 3
    assert all(one for one in theirs)
    different = wer_percent([" ".join(one.split()) for one in theirs], [" ".join(one.split()) for one in ours])
    assert different < (MAX_DIFFERENT if kind == "static" else 1.0), np.array([ours, theirs]).T
    if kind == "shipped":
        words = [" ".join(word.replace(" ", "") for word in one.strip().split("  ")) for one in ours]
        assert wer_percent([clip.text for clip in clips], words) < 40.0
