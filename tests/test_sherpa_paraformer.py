"""The real client and Paraformer: the same characters in fp32 and quantized."""

from itertools import islice

import onnx
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.metrics.text_metrics import cer_percent
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.paraformer import Paraformer
from tests.models.test_paraformer import PREDICTOR, write_paraformer
from tests.test_sherpa_onnx import client

pytest.importorskip("sherpa_onnx", reason="needs the extra test")

CLIPS = 12
QUICK = ("evaluation.samples=8", "package.samples=4", "evaluation.node_samples=0")


def both(folder, file, repo, tmp_path):
    """Return the transcripts of clips, here and in the client."""
    model, sessions = Paraformer("p", dir=str(folder)), ModelSessions({"encoder": file}, 1)
    clips = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), CLIPS))
    ours = []
    for clip in clips:
        sample = model.sample(clip, lambda path, rate: read_audio(path, rate, SampleRateMismatch.refuse, []))
        ours.append(model.transcript(model.infer(sample, sessions.runner([0]))))
    layout = model.client_layout()
    found = client(tmp_path, {
        "task": "hear", "loader": layout.loader, "files": {"paraformer": str(file)}, "tokens": str(folder / "tokens.txt"),
        "audio": [str(clip.audio) for clip in clips],
    })  # fmt: skip
    return ours, found["text"].tolist()


def test_a_paraformer_writes_what_it_writes_in_the_client(repo, tmp_path):
    folder = write_paraformer(tmp_path / "paraformer")
    ours, theirs = both(folder, folder / "model.onnx", repo, tmp_path)
    assert ours == theirs
    assert len(set("".join(ours))) > 10


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_quantized_paraformer_writes_in_the_client_what_it_writes_here(repo, run_in, tmp_path, mode):
    folder = write_paraformer(tmp_path / "paraformer")
    quick = ("calibration.samples=8", *QUICK) if mode == "static" else QUICK
    run = run_in(
        tmp_path, "model=paraformer", f"model.dir={folder}", f"mode={mode}", *quick, "package=sherpa_onnx",
        "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    ours, theirs = both(folder, run.directory / artifact["file"], repo, tmp_path)
    assert cer_percent(ours, theirs) < 4  # another release of ONNX Runtime rounds otherwise here and there
    kept = {node.name for node in onnx.load(run.directory / artifact["file"]).graph.node if node.op_type in ("Conv", "MatMul")}
    assert kept >= PREDICTOR
    outputs = run.report["evaluation"]["outputs"]
    assert outputs["token_num"]["agreement_percent"] >= 75
    assert run.report["evaluation"]["metrics"]["posterior_kl"]["quantized"] < 0.5
    trial = run.report["package"]["trial"]
    assert abs(trial["wer_percent"] - trial["own_wer_percent"]) < 10  # of random words
    card = (run.directory / "package" / "README.md").read_text(encoding="utf-8")
    assert "--paraformer=" in card
