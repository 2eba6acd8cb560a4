"""A process that is sherpa-onnx's user. The library ends its process where a model does not suit it, so it has one of its own.

    python sherpa_onnx_child.py job.json answer.json

The job: `task` (listen, follow, speak, detect, denoise), `loader`, `kotlin`, `arguments`, and `inputs`, a list of
{"audio": path}, with {"wav": the file to write} of a denoiser, {"tail_s": seconds of silence behind it} of a streaming
recogniser, or {"text", "phonemes", "wav"}. The answer: `version`,
`onnxruntime`, and `texts`, `rate_hz`, or `speech`, whether somebody speaks, step by step. It imports nothing of this
project: the interpreter may be that of another environment.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import sherpa_onnx
import soundfile


def _of_this_version(of: type | ModuleType, name: str) -> Any:  # noqa: ANN401 (the library states no types)
    """Return a part of the library, which older versions may lack."""
    if not hasattr(of, name):
        sys.exit(f"sherpa-onnx {sherpa_onnx.__version__} has no {of.__name__}.{name}: it is too old for this kind of model")
    return getattr(of, name)


def listen(job: dict[str, Any]) -> dict[str, Any]:
    """Return the transcripts of recordings."""
    recogniser = _of_this_version(sherpa_onnx.OfflineRecognizer, job["loader"])(**job["arguments"], num_threads=1)
    texts = []
    for given in job["inputs"]:
        audio, rate = soundfile.read(given["audio"], dtype="float32", always_2d=True)
        stream = recogniser.create_stream()
        stream.accept_waveform(rate, audio.mean(axis=1))
        recogniser.decode_stream(stream)
        texts.append(stream.result.text.strip())
    return {"texts": texts}


def follow(job: dict[str, Any]) -> dict[str, Any]:
    """Return the transcripts that a streaming recogniser writes while recordings are heard."""
    recogniser = _of_this_version(sherpa_onnx.OnlineRecognizer, job["loader"])(**job["arguments"], num_threads=1)
    texts = []
    for given in job["inputs"]:
        audio, rate = soundfile.read(given["audio"], dtype="float32", always_2d=True)
        stream = recogniser.create_stream()
        stream.accept_waveform(rate, audio.mean(axis=1))
        stream.accept_waveform(rate, np.zeros(int(given["tail_s"] * rate), np.float32))
        stream.input_finished()
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)
        texts.append(recogniser.get_result(stream).strip())
    return {"texts": texts}


def speak(job: dict[str, Any]) -> dict[str, Any]:
    """Write the speech of texts as WAV files of floats; return their sample rate in Hz."""
    part = _of_this_version(sherpa_onnx, job["kotlin"])(**{"lexicon": "", **job["arguments"]})
    model = sherpa_onnx.OfflineTtsModelConfig(**{job["loader"]: part}, num_threads=1)
    config = sherpa_onnx.OfflineTtsConfig(model=model, max_num_sentences=1, silence_scale=1.0)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    tts = sherpa_onnx.OfflineTts(config)
    for given in job["inputs"]:
        request = _of_this_version(sherpa_onnx, "GenerationConfig")()
        request.silence_scale = 1.0
        if given["phonemes"] is not None:
            request.phoneme_codepoints = [[ord(symbol) for symbol in given["phonemes"]]]
            request.extra = {"min_words_in_sentence": "1000"}  # or a comma would begin another sentence
        speech = tts.generate(given["text"], request)
        soundfile.write(given["wav"], np.asarray(speech.samples, np.float32), speech.sample_rate, subtype="FLOAT")
    return {"rate_hz": tts.sample_rate}


def detect(job: dict[str, Any]) -> dict[str, Any]:
    """Return what a detector decides, step by step, of each recording."""
    part = getattr(sherpa_onnx, job["kotlin"])(**job["arguments"])
    config = sherpa_onnx.VadModelConfig(**{job["loader"]: part}, sample_rate=16_000, num_threads=1)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    decided = []
    for given in job["inputs"]:
        audio, _ = soundfile.read(given["audio"], dtype="float32")
        model = sherpa_onnx.VadModel.create(config)
        size, hop = model.window_size(), job["arguments"]["window_size"]
        starts = range(0, len(audio) - size + 1, hop)
        decided.append([bool(model.is_speech(audio[start : start + size].tolist())) for start in starts])
    return {"speech": decided}


def denoise(job: dict[str, Any]) -> dict[str, Any]:
    """Write recordings without noise as WAV files of floats; return their sample rate in Hz."""
    part = getattr(sherpa_onnx, job["kotlin"])(**job["arguments"])
    model = sherpa_onnx.OfflineSpeechDenoiserModelConfig(**{job["loader"]: part}, num_threads=1)
    config = sherpa_onnx.OfflineSpeechDenoiserConfig(model=model)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    denoiser = sherpa_onnx.OfflineSpeechDenoiser(config)
    for given in job["inputs"]:
        audio, rate = soundfile.read(given["audio"], dtype="float32")
        clean = denoiser.run(audio, rate)
        soundfile.write(given["wav"], np.asarray(clean.samples, np.float32), clean.sample_rate, subtype="FLOAT")
    return {"rate_hz": denoiser.sample_rate}


TASKS = {"listen": listen, "follow": follow, "speak": speak, "detect": detect, "denoise": denoise}

if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = TASKS[wanted["task"]](wanted)
    answer |= {"version": sherpa_onnx.__version__, "onnxruntime": getattr(sherpa_onnx, "onnxruntime_version", None)}
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")
