"""The real client: sherpa-onnx runs the models that ship, and everything that is made of them, as this project does."""

import functools
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile

from pipeline.audio.resample import resample
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.evaluate.tts_scorer import Listener
from pipeline.graph.session import infer, open_session
from pipeline.metrics.text_metrics import spoken_words, wer_percent
from pipeline.models.ctc import Ctc
from pipeline.models.matcha import Matcha
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.text.espeak import symbols_of
from pipeline.models.vits import Vits
from pipeline.models.whisper import Whisper
from pipeline.utterance import Utterance
from tests.conftest import MODELS, MODES
from tests.small_voice import write_piper_voice
from tests.whisper_graphs import write_whisper

pytest.importorskip("sherpa_onnx", reason="needs the extra test")
pytest.importorskip("espeakng_loader", reason="needs the extra test")

CLIPS = 20
SENTENCES = 4
WITHIN_WORDS = 1  # of about twenty
NOISE_SCALE = 0.0  # neither draws any noise then, so that both say the same every time
MADE = ("fp32", *MODES)
LAID_OUT = (
    "mode=static",
    "mode.optimize=true",
    "mode.rewrites=[integer_channels_last]",
)  # with operators of ONNX Runtime's own
VOCODERS = {"vocoder": "vocoder/vocos.onnx", "hifigan": "hifigan/hifigan.onnx"}
LIMIT_S = 1800  # a client that hangs must not hang the suite


def client(folder: Path, job) -> dict[str, np.ndarray]:
    """Return what sherpa-onnx makes of a job."""
    request, result = folder / "job.json", folder / "result.npz"
    request.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("sherpa_client.py")), str(request), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"
    with np.load(result) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def made(repo, run_in, shipped_run, tmp_path_factory):
    """Return a function: model and mode -> its file; `fp32` is the model that ships."""
    shipped = {"asr": "asr/model.onnx", "matcha": "matcha/model-steps-3.onnx", **VOCODERS}

    @functools.cache
    def make(model: str, mode: str) -> Path:
        if mode == "fp32":
            return repo / "data/models" / shipped[model]
        if model in MODELS and mode in MODES:
            run = shipped_run(model, mode)
        else:
            modes = LAID_OUT if mode == "laid_out" else (f"mode={mode}",)
            few = (
                "stages=[load,quantize]",
                "evaluation.samples=2",
                *(["calibration.samples=2"] if "mode=static" in modes else []),
            )
            run = run_in(tmp_path_factory.mktemp(f"{model}_{mode}"), f"model={model}", *modes, *few).succeeded()
        [artifact] = run.report["artifacts"]
        return run.directory / artifact["file"]

    return make


@pytest.mark.parametrize("mode", MADE)
def test_the_recogniser_hears_the_same_words(made, repo, tmp_path, mode):
    clips = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), CLIPS))
    asr = Ctc("asr", str(repo / "data/models/asr/model.onnx"))
    session = open_session(made("asr", mode))
    ours = [asr.transcript(infer(session, asr.sample(clip, reader))) for clip in clips]
    theirs = client(tmp_path, {
        "task": "hear", "model": str(made("asr", mode)), "tokens": str(repo / "data/models/asr/tokens.txt"),
        "audio": [str(clip.audio) for clip in clips],
    })["text"].tolist()  # fmt: skip
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(same) >= 0.95, [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert any(ours)


@pytest.mark.parametrize("mode", ["fp32", "dynamic", "static"])
def test_whisper_writes_what_this_project_does(build, repo, run_in, tmp_path, mode):
    folder = write_whisper(tmp_path / "whisper", build)
    files = {part: folder / f"small-{part}.onnx" for part in ("encoder", "decoder")}
    if mode != "fp32":
        few = ["calibration.samples=4"] if mode == "static" else []
        run = run_in(
            tmp_path, "model=whisper", f"model.dir={folder}", f"mode={mode}", *few, "stages=[load,quantize]"
        ).succeeded()
        files = {artifact["graph"]: run.directory / artifact["file"] for artifact in run.report["artifacts"]}
    model = Whisper("w", dir=str(folder))
    sessions = ModelSessions(files, 1)
    clips = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), CLIPS))
    ours = [model.transcript(model.infer(model.sample(clip, reader), sessions.runner([0]))) for clip in clips]
    theirs = client(tmp_path, {
        "task": "hear", "loader": "from_whisper", "files": {part: str(path) for part, path in files.items()},
        "tokens": str(folder / "small-tokens.txt"), "audio": [str(clip.audio) for clip in clips],
    })["text"].tolist()  # fmt: skip
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(same) >= 0.95, [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert any(ours)


@pytest.mark.parametrize("mode", MADE)
def test_the_acoustic_model_and_its_vocoder_say_the_same_words(speech, mode):
    compare(speech("matcha", mode, "vocoder", mode))


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_vocoder_of_convolutions_makes_the_same_words_audible(speech, mode):
    """Of the modes that compute in integers; what the others store is made floats again, as in the test above."""
    compare(speech("matcha", "fp32", "hifigan", mode))


def test_a_vocoder_with_channels_last_is_heard_as_well(speech, made):
    compare(speech("matcha", "fp32", "hifigan", "laid_out"))
    kinds = [node.op_type for node in onnx.load(made("hifigan", "laid_out")).graph.node]
    assert kinds.count("QLinearConv") > 20, "nowhere near as fast without, so that it was kept"


def test_without_noise_the_speech_is_the_same_sample_by_sample(speech):
    same = speech("matcha", "fp32", "hifigan", "fp32")
    compare(same)
    for ours, theirs in same.audio:
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_voice_of_piper_says_in_the_client_what_it_says_here(run_quickly, tmp_path, mode):
    path = write_piper_voice(tmp_path)
    compare_voice(path, run_quickly, tmp_path, "hello, low world.", f"mode={mode}")


def test_a_real_voice_of_piper_says_in_the_client_what_it_says_here(run_quickly, tmp_path, real_voice):
    compare_voice(real_voice, run_quickly, tmp_path, "Hello, this is what the client says as well.", "mode=static")


def compare_voice(voice: Path, run_quickly, folder: Path, text: str, mode: str) -> None:
    """Compare, sample by sample, what a quantized voice says here and in the client, and its length with the original's."""
    (folder / "lines.txt").write_text(f"{text}\nhello.\n", encoding="utf-8")
    data = ("calibration=sentences", "calibration.path=lines.txt") if mode == "mode=static" else ()
    run = run_quickly(
        "model=vits", f"model.path={voice}", mode, "stages=[load,quantize]", "evaluation.path=lines.txt", *data
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    file, tokens = run.directory / artifact["file"], run.directory / "tokens.txt"
    result = client(folder, {
        "task": "speak", "voice": str(file), "tokens": str(tokens), "noise_scale": 0.0, "texts": [text],
        "phonemes": [symbols_of(text, "en-us")],
    })  # fmt: skip
    adapter = Vits("v", str(voice), noise_scale=0.0, length_scale=1.0)
    sample = adapter.for_comparison(adapter.sample(Utterance("u", text=text), reader))
    ours, original = (adapter.infer(sample, ModelSessions({"voice": graph}, 1).runner([0]))["audio"] for graph in (file, voice))
    theirs = result["audio_0"]
    assert int(result["sample_rate_hz"]) == adapter.rate_hz
    assert ours.shape == theirs.shape == original.shape
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(ours).max(), (
        "another release of ONNX Runtime rounds otherwise, here and there"
    )


class Speech:
    """The same sentences, spoken by this project and by sherpa-onnx.

    Attributes:
        texts: what was to be said.
        audio: (ours, theirs) of each, at the sample rate of the model.
        heard: transcripts of ours, and of theirs.
    """

    def __init__(self, texts, audio, heard):
        self.texts = texts
        self.audio = audio
        self.heard = heard


def compare(speech: Speech) -> None:
    ours, theirs = (wer_percent(speech.texts, transcripts) for transcripts in speech.heard)
    words = sum(len(text.split()) for text in speech.texts)
    assert abs(ours - theirs) * words / 100 < WITHIN_WORDS + 0.5, (ours, theirs, speech.heard)
    assert ours < 50, "what nobody understands proves nothing"


@pytest.fixture
def speech(made, repo, tmp_path):
    """Return a function: acoustic model and its mode, vocoder and its mode -> the sentences as both speak them."""
    models = repo / "data/models"
    sentences = list(islice(manifest_lines(repo / "data/sentences/evaluation.jsonl", "data"), SENTENCES))
    recogniser = Ctc("asr", str(models / "asr/model.onnx"))
    listener = Listener(recogniser, open_session(models / "asr/model.onnx"))

    def speak(acoustic: str, acoustic_mode: str, vocoder: str, vocoder_mode: str) -> Speech:
        files = {"acoustic": made(acoustic, acoustic_mode), "vocoder": made(vocoder, vocoder_mode)}
        shipped = str(models / "matcha/model-steps-3.onnx")
        model = Matcha("matcha", shipped, vocoder_path=str(models / VOCODERS[vocoder]), noise_scale=NOISE_SCALE)
        run = ModelSessions(files, 1).runner([0])
        # Read by our own front end, not from the manifest, so that both begin with the text.
        spoken = [model.infer(model.sample(Utterance(s.id, text=s.text), reader), run)["audio"] for s in sentences]
        result = client(tmp_path, {
            "task": "speak", "acoustic": str(files["acoustic"]), "vocoder": str(files["vocoder"]),
            "tokens": str(models / "matcha/tokens.txt"), "noise_scale": NOISE_SCALE,
            "texts": [s.text for s in sentences], "phonemes": [symbols_of(s.text, "en-us") for s in sentences],
        })  # fmt: skip
        theirs = [result[f"audio_{k}"] for k in range(len(sentences))]
        assert int(result["sample_rate_hz"]) == model.rate_hz
        heard = [[listener.transcript(audio, model.rate_hz) for audio in side] for side in (spoken, theirs)]
        return Speech([spoken_words(s.text) for s in sentences], list(zip(spoken, theirs, strict=True)), heard)

    return speak


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


DIGITS = 64  # of the alphabet that a probe model spells features in
STEP = 1 / 2048  # nats


SPELLED = """above = Add ({features}, lowest)
    steps = Mul (above, per_nat)
    whole = Round (steps)
    number = Cast <to = 7> (whole)
    column = Reshape (number, to_column)
    places = Div (column, powers)
    digits = Mod (places, base)
    tokens = Add (digits, one)"""


@pytest.fixture
def probe(tmp_path, build):
    """Write a CTC model that hears no words: its greedy path spells the features that the client has computed, in digits."""
    text = f"""probe (float[1, T, 80] x, int64[1] x_lens) => (float[1, F, 65] log_probs, int64[1] log_probs_len) {{
        {SPELLED.format(features="x")}
        spelled = Reshape (tokens, to_column)
        blanks = Mul (spelled, zero)
        both = Concat <axis = 2> (spelled, blanks)
        ids = Reshape (both, to_row)
        log_probs = OneHot <axis = -1> (ids, classes, off_on)
        size = Shape (ids)
        log_probs_len = Slice (size, from, to)
    }}"""
    constants = {
        "lowest": np.float32(32), "per_nat": np.float32(1 / STEP), "to_column": np.array([1, -1, 1]),
        "to_row": np.array([1, -1]),
        "powers": np.array([[[DIGITS**2, DIGITS, 1]]]), "base": np.int64(DIGITS), "one": np.int64(1), "zero": np.int64(0),
        "classes": np.int64(DIGITS + 1), "off_on": np.array([-20, 0], np.float32), "from": np.array([1]), "to": np.array([2]),
    }  # fmt: skip
    model = build(text, **constants)
    onnx.helper.set_model_props(model, {"model_type": "zipformer2_ctc", "vocab_size": "65", "subsampling_factor": "4"})
    onnx.save(model, tmp_path / "probe.onnx")
    table = "<blk> 0\n" + "".join(f"t{k:02d} {k + 1}\n" for k in range(DIGITS))
    (tmp_path / "tokens.txt").write_text(table, encoding="utf-8")
    return tmp_path / "probe.onnx"


EVERY = 41  # bands of a stacked frame, of which the first frames spell one
PARAFORMER = f"""probe (float[1, T, 560] speech, int32[1] speech_lengths) => (float[1, F, 66] logits, int32[1] token_num) {{
    {SPELLED.format(features="speech")}
    ids = Reshape (tokens, to_row)
    logits = OneHot <axis = -1> (ids, classes, off_on)
    size = Shape (ids)
    last = Slice (size, from, to)
    token_num = Cast <to = 6> (last)
}}"""
SENSE_VOICE = f"""probe (float[1, T, 560] x, int32[1] x_length, int32[1] language, int32[1] text_norm)
    => (float[1, F, 66] logits) {{
    few = Slice (x, from, end, to, every)
    {SPELLED.format(features="few")}
    spelled = Reshape (tokens, to_column)
    blanks = Mul (spelled, zero)
    both = Concat <axis = 2> (spelled, blanks)
    row = Reshape (both, to_row)
    ids = Concat <axis = 1> (four, row)
    logits = OneHot <axis = -1> (ids, classes, off_on)
}}"""


@pytest.mark.parametrize(
    ("family", "text", "loader"),
    [("paraformer", PARAFORMER, {"loader": "from_paraformer", "argument": "paraformer"}),
     ("sense_voice_ctc", SENSE_VOICE, {"loader": "from_sense_voice"})],
)  # fmt: skip
def test_stacked_features_are_the_client_s(build, repo, tmp_path, family, text, loader):
    constants = {
        "lowest": np.float32(32), "per_nat": np.float32(1 / STEP), "to_column": np.array([1, -1, 1]),
        "to_row": np.array([1, -1]), "powers": np.array([[[DIGITS**2, DIGITS, 1]]]), "base": np.int64(DIGITS),
        "one": np.int64(1), "zero": np.int64(0), "four": np.array([[1, 2, 3, 4]]), "classes": np.int64(DIGITS + 2),
        "off_on": np.array([-20, 0], np.float32), "from": np.array([1]), "to": np.array([2]),
        "end": np.array([560]), "every": np.array([EVERY]),
    }  # fmt: skip
    model, rng = build(text, **constants), np.random.default_rng(0)
    metadata = {
        "model_type": family, "vocab_size": str(DIGITS + 2), "lfr_window_size": "7", "lfr_window_shift": "6",
        "neg_mean": ",".join(f"{value:.3f}" for value in rng.uniform(-12, -8, 560)),
        "inv_stddev": ",".join(f"{value:.3f}" for value in rng.uniform(0.2, 0.5, 560)), "normalize_samples": "0",
        "with_itn": "14", "without_itn": "15", **{f"lang_{name}": "0" for name in ("auto", "zh", "en", "ja", "ko", "yue")},
    }  # fmt: skip
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "probe.onnx")
    table = "<blank> 0\n" + "".join(f"t{k:02d} {k + 1}\n" for k in range(DIGITS)) + f"</s> {DIGITS + 1}\n"
    (tmp_path / "tokens.txt").write_text(table, encoding="utf-8")
    speech, rate = soundfile.read(repo / "data/clips/evaluation/e000.flac", dtype="float32")
    speech = speech[:16_000] if family == "paraformer" else np.tile(speech, 3)
    soundfile.write(tmp_path / "a.wav", speech, rate, subtype="PCM_16")
    files = {"model": str(tmp_path / "probe.onnx"), "tokens": str(tmp_path / "tokens.txt"), "audio": [str(tmp_path / "a.wav")]}
    [tokens] = client(tmp_path, {"task": "hear", **files, **loader})["tokens"].tolist()
    spelled = [int(token[1:]) for token in tokens.split()]
    digits = np.array(spelled[: len(spelled) // 3 * 3]).reshape(-1, 3)
    theirs = digits @ [DIGITS**2, DIGITS, 1] * STEP - 32
    asr = Ctc("asr", str(tmp_path / "probe.onnx"))
    asr.check()
    features, count, *_ = asr.sample_of_audio("a", reader(tmp_path / "a.wav", asr.sample_rate_hz)).inputs.values()
    assert features.shape == (1, *count.tolist(), 560)
    if family == "paraformer":
        assert features.size == theirs.size
    else:  # its client reads as many tokens as there are frames, which spell the beginning of some bands
        assert len(spelled) == len(features[0]) // 2
        features = features[:, :, 1::EVERY]
    assert np.abs(features.reshape(-1)[: theirs.size] - theirs).max() < 2 * STEP


@pytest.mark.parametrize(("loader", "family"), [("from_zipformer_ctc", "icefall"), ("from_wenet_ctc", "wenet")])
def test_the_features_of_any_sample_rate_are_the_client_s(probe, repo, tmp_path, loader, family):
    speech, rate = soundfile.read(repo / "data/clips/evaluation/e000.flac", dtype="float32")
    files = []
    for rate_hz in (8000, 16_000, 22_050, 44_100, 48_000):
        files.append(tmp_path / f"{rate_hz}.wav")
        soundfile.write(files[-1], resample(speech, rate, rate_hz), rate_hz, subtype="PCM_16")
    job = {
        "task": "hear", "loader": loader, "model": str(probe), "tokens": str(tmp_path / "tokens.txt"),
        "audio": [str(file) for file in files],
    }  # fmt: skip
    spelled = client(tmp_path, job)["tokens"]
    asr = Ctc("asr", str(repo / "data/models/asr/model.onnx"), features=family)
    for file, tokens in zip(files, spelled.tolist(), strict=True):
        digits = np.array([int(token[1:]) for token in tokens.split()]).reshape(-1, 3)
        theirs = (digits @ [DIGITS**2, DIGITS, 1] * STEP - 32).reshape(-1, 80)
        audio = read_audio(file, asr.sample_rate_hz, SampleRateMismatch.resample, [], asr.resample)
        ours = asr.sample_of_audio(file.stem, audio).inputs["x"][0]
        assert ours.shape == theirs.shape
        difference = np.abs(ours - theirs)[:, :-2]
        if family == "wenet":  # whose client draws noise of one unit: what is louder than that is the same
            assert np.median(difference) < 0.1, file.stem
            assert np.abs((ours - theirs).mean()) < 0.05, file.stem
        else:
            assert difference.max() < 0.1, file.stem
