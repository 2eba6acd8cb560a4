"""The package in sherpa-onnx itself: it is opened there, listens or speaks, and is right as often as the pipeline is."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.datasets import EvaluationSample, audio_reader
from pipeline.errors import ConfigError, StageError
from pipeline.evaluate.tts_scorer import listener_of
from pipeline.interruption import run_and_end_with_us
from pipeline.metrics.tensor_metrics import sqnr_db
from pipeline.metrics.text_metrics import spoken_words, wer_percent
from pipeline.models.client_layout import ClientLayout, HearsTracks, RunsInSherpaOnnx, Task
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.speech_model import Detects, Speaks, TextToSpeech, Transcribes
from pipeline.package.collect_files import PackagedGraph
from pipeline.record.packaged import ClientTrial
from pipeline.record.run_log import RunLog

LIBRARY = "sherpa-onnx"
MOST_APART_DB = 150.0  # of float32: no difference
CHILD = Path(__file__).with_name("sherpa_onnx_child.py")
INSTALL = (
    f"pip install {LIBRARY}, or name the Python of an environment that has it and soundfile: package.python=venv/bin/python"
)


def client_python(setting: str | None) -> str | None:
    """Return the interpreter that has sherpa-onnx; None where it is not installed and none is named.

    Raises:
        ConfigError: the one that the setting names is no file.
    """
    if setting is None:
        return sys.executable if importlib.util.find_spec("sherpa_onnx") else None
    python = Path(setting).expanduser()
    if not python.is_file():
        raise ConfigError(f"package.python: {python} is no file; give the Python of an environment: venv/bin/python.")
    return str(python.absolute())  # not resolved: a link decides the environment


def try_in_client(
    python: str,
    folder: Path,
    layout: ClientLayout,
    graphs: Sequence[PackagedGraph],
    model: LoadedModel,
    items: Sequence[EvaluationSample],
    *,
    seed: int,
) -> ClientTrial:
    """Run a package in sherpa-onnx, and the pipeline with the same graphs on the same samples.

    Speech is made without noise, so that both say the same each time.

    Args:
        python: has the library.
        folder: the package.
        layout: how the client is given the model.
        graphs: what is in the package.
        model: the original.
        items: what is heard or spoken; each has an utterance.
        seed: of noise that the graphs draw themselves.

    Raises:
        StageError: the client refuses the package, ends its process, or gives what is no speech.
    """
    adapter = model.adapter
    assert isinstance(adapter, RunsInSherpaOnnx)
    names = {graph.role: graph.name for graph in graphs}
    arguments = {
        file.argument: str(folder / (names[file.graph] if file.graph is not None else file.name)) for file in layout.files
    }
    if layout.model_type is not None:
        arguments["model_type"] = layout.model_type
    if layout.task in (Task.detect, Task.denoise):
        return _of_tracks(python, folder, layout, arguments | dict(layout.options), graphs, model, items, seed)
    utterances = [item.utterance for item in items if item.utterance is not None]
    with tempfile.TemporaryDirectory() as place:
        if layout.task in (Task.listen, Task.follow):
            tail = {"tail_s": layout.tail_s} if layout.task is Task.follow else {}
            given: list[dict[str, Any]] = [{"audio": adapter.client_input(utterance), **tail} for utterance in utterances]
            answer = _answer(python, layout, arguments | dict(layout.options), given, Path(place), folder)
            heard: list[str] | None = answer["texts"]
        else:
            given = [
                {"text": one.text, "phonemes": adapter.client_input(one), "wav": str(Path(place) / f"{number}.wav")}
                for number, one in enumerate(utterances)
            ]
            answer = _answer(python, layout, arguments | _without_noise(layout), given, Path(place), folder)
            speech = [_read(Path(one["wav"])) for one in given]
            listener = listener_of(adapter, model.threads) if isinstance(adapter, TextToSpeech) else None
            heard = None if listener is None else [listener.transcript(audio, answer["rate_hz"]) for audio in speech]
    own = None if heard is None else _own_texts(model, graphs, items, seed)
    truth = [spoken_words(one.text or "") for one in utterances]
    known = heard is not None and own is not None and bool(truth) and all(truth)  # arrays and untranscribed speech have none
    return ClientTrial(
        f"{LIBRARY} {answer['version']}",
        answer["onnxruntime"],
        len(utterances),
        round(wer_percent(truth, [spoken_words(text) for text in heard or []]), 3) if known else None,
        round(wer_percent(truth, [spoken_words(text) for text in own or []]), 3) if known else None,
    )


def _of_tracks(
    python: str,
    folder: Path,
    layout: ClientLayout,
    arguments: Mapping[str, Any],
    graphs: Sequence[PackagedGraph],
    model: LoadedModel,
    items: Sequence[EvaluationSample],
    seed: int,
) -> ClientTrial:
    """Try a detector or a denoiser: what the client makes of tracks, beside what the pipeline does with the same graphs."""
    adapter, heard = model.adapter, [item for item in items if item.utterance is not None]
    assert isinstance(adapter, HearsTracks)
    read = audio_reader(SampleRateMismatch.resample, RunLog(), adapter.resample)
    sessions = ModelSessions(model, model.threads, _changed(graphs))
    own = [adapter.infer(item.sample, sessions.runner([seed, number])) for number, item in enumerate(heard)]
    with tempfile.TemporaryDirectory() as place:
        given = []
        for number, item in enumerate(heard):
            assert item.utterance is not None
            paths = {name: str(Path(place) / f"{number}.{name}.wav") for name in ("audio", "wav")}
            track = adapter.track(item.utterance, read)
            soundfile.write(paths["audio"], track.audio, adapter.rate_of_audio_hz, subtype="FLOAT")
            given.append(paths)
        answer = _answer(python, layout, arguments, given, Path(place), folder)
        trial = ClientTrial(f"{LIBRARY} {answer['version']}", answer["onnxruntime"], len(heard))
        if isinstance(adapter, Detects):
            decided = [adapter.speech(adapter.probabilities(outputs)) for outputs in own]
            return replace(trial, same_percent=_same_percent(decided, answer["speech"]))
        assert isinstance(adapter, Speaks)
        pairs = [(adapter.audio(outputs), _read(Path(paths["wav"]))) for outputs, paths in zip(own, given, strict=True)]
    levels = [sqnr_db(ours[: len(theirs)], theirs[: len(ours)]) for ours, theirs in pairs]
    return replace(trial, apart_db=round(min(*levels, MOST_APART_DB), 1))


def _same_percent(ours: Sequence[np.ndarray], theirs: Sequence[Sequence[bool]]) -> float:
    """Return of how many steps the same is said; a step that one side does not have counts as another."""
    same = sum(int(np.sum(one[: len(other)] == np.array(other[: len(one)]))) for one, other in zip(ours, theirs, strict=True))
    return round(100.0 * same / max(1, sum(max(len(one), len(other)) for one, other in zip(ours, theirs, strict=True))), 3)


def _changed(graphs: Sequence[PackagedGraph]) -> dict[str, Path]:
    return {graph.role: graph.source for graph in graphs if graph.quantized}


def _without_noise(layout: ClientLayout) -> dict[str, float | str]:
    return {name: 0.0 if name.startswith("noise_scale") else value for name, value in layout.options.items()}


def _answer(
    python: str, layout: ClientLayout, arguments: Mapping[str, Any], inputs: Sequence[Any], place: Path, folder: Path
) -> dict[str, Any]:
    job = {
        "task": layout.task.value,
        "loader": layout.loader,
        "kotlin": layout.kotlin,
        "arguments": arguments,
        "inputs": inputs,
    }
    (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
    done = run_and_end_with_us(
        [python, str(CHILD), str(place / "job.json"), str(place / "answer.json")],
        stdin=subprocess.DEVNULL, text=True, errors="replace", env=os.environ | {"PYTHONUTF8": "1"},
    )  # fmt: skip
    answer = place / "answer.json"
    if done.returncode == 0 and answer.is_file():
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:]) or "it left no message"
    graphs = ", ".join(sorted(path.name for path in folder.glob("*.onnx")))
    raise StageError(f"package: {LIBRARY} does not run {graphs} ({how}); nothing was packed. It said:\n{words}")


def _read(path: Path) -> np.ndarray:
    audio: np.ndarray = soundfile.read(path, dtype="float32")[0]
    if not audio.size or not np.isfinite(audio).all() or not audio.any():
        what = "no audio" if not audio.size else "silence" if np.isfinite(audio).all() else "NaN or Inf"
        raise StageError(f"package: {LIBRARY} speaks {what} with this model; nothing was packed.")
    return audio


def _own_texts(
    model: LoadedModel, graphs: Sequence[PackagedGraph], items: Sequence[EvaluationSample], seed: int
) -> list[str] | None:
    """Return what the pipeline hears with the same graphs, or what is heard in its speech; None where it cannot tell."""
    sessions = ModelSessions(model, model.threads, _changed(graphs))
    adapter = model.adapter
    texts = []
    if isinstance(adapter, Transcribes):
        for number, item in enumerate(items):
            texts.append(adapter.transcript(adapter.infer(item.sample, sessions.runner([seed, number]))))
        return texts
    listener = listener_of(adapter, model.threads) if isinstance(adapter, TextToSpeech) else None
    if listener is None or not isinstance(adapter, TextToSpeech):
        return None
    assert isinstance(adapter, RunsInSherpaOnnx)
    quiet = adapter.without_noise()
    for number, item in enumerate(items):
        assert item.utterance is not None
        outputs = quiet.infer(quiet.sample(item.utterance, _no_recordings), sessions.runner([seed, number]))
        texts.append(listener.transcript(np.asarray(outputs["audio"], np.float32), adapter.rate_hz))
    return texts


def _no_recordings(path: Path, rate_hz: int) -> np.ndarray:
    raise StageError(f"package: a model that speaks asks for a recording, {path} at {rate_hz} Hz.")
