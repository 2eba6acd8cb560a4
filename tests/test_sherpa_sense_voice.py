"""The real client and SenseVoice: the same tokens, one by one, in fp32 and quantized, in any language that is asked for."""

from itertools import islice

import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.metrics.text_metrics import cer_percent
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.sense_voice import SenseVoice
from tests.sense_voice_graphs import write_sense_voice
from tests.test_sherpa_onnx import client

pytest.importorskip("sherpa_onnx", reason="needs the extra test")

CLIPS = 12
QUICK = ("calibration.samples=8", "evaluation.samples=8", "package.samples=4", "evaluation.node_samples=0")


def both(folder, file, repo, tmp_path, **settings):
    """Return the tokens of clips, one list a clip, of ours and of the client's."""
    model = SenseVoice("s", dir=str(folder), **settings)
    sessions = ModelSessions({"encoder": file}, 1)
    clips = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), CLIPS))
    ours = []
    for clip in clips:
        sample = model.sample(clip, lambda path, rate: read_audio(path, rate, SampleRateMismatch.refuse, []))
        ours.append(model.transcript(model.infer(sample, sessions.runner([0]))))
    layout = model.client_layout()
    found = client(tmp_path, {
        "task": "hear", "loader": layout.loader, "model": str(file), "tokens": str(folder / "tokens.txt"),
        "audio": [str(clip.audio) for clip in clips], "options": dict(layout.options),
    })  # fmt: skip
    return ours, found["text"].tolist()


@pytest.mark.parametrize(("language", "use_itn"), [(None, False), ("yue", True)])
def test_a_sense_voice_says_token_by_token_what_it_says_in_the_client(build, repo, tmp_path, language, use_itn):
    folder = write_sense_voice(tmp_path / "sense", build)
    ours, theirs = both(folder, folder / "model.onnx", repo, tmp_path, language=language, use_itn=use_itn)
    assert ours == theirs
    assert len(set("".join(ours))) > 10


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_quantized_sense_voice_says_in_the_client_what_it_says_here(build, repo, run_in, tmp_path, mode):
    folder = write_sense_voice(tmp_path / "sense", build)
    quick = QUICK if mode == "static" else QUICK[1:]
    run = run_in(
        tmp_path, "model=sense_voice", f"model.dir={folder}", f"mode={mode}", *quick, "model.language=en",
        "package=sherpa_onnx", "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    ours, theirs = both(folder, run.directory / artifact["file"], repo, tmp_path, language="en")
    assert cer_percent(ours, theirs) < 4  # another release of ONNX Runtime rounds otherwise here and there
    assert run.report["evaluation"]["metrics"]["posterior_kl"]["quantized"] < 0.5
    trial = run.report["package"]["trial"]
    assert abs(trial["wer_percent"] - trial["own_wer_percent"]) < 10  # of random words
    card = (run.directory / "package" / "README.md").read_text(encoding="utf-8")
    assert "--sense-voice-language=en" in card
    assert "use_itn=False" in card
    assert "useInverseTextNormalization = false" in card
