"""A process that is sherpa-onnx's user: it ends the process where a model does not suit it, so it has one of its own.

    python sherpa_client.py <job.json> <result.npz>

A job is {"task": "hear", "model", "tokens", "audio": [path, ...], "loader", "argument"} or {"task": "speak", "acoustic",
"vocoder", "tokens", "noise_scale", "texts": [...], "phonemes": [...]}, with "voice" for "acoustic" and "vocoder" of VITS, and
"kokoro" or "kitten", "voices" and "sid" of Kokoro: version 2 has no espeak-ng any more and takes phonemes from outside. A
recogniser of several files has {"files": {argument: path}} in the place of "model"; "options" are further arguments of the
loader. A detector is {"task": "detect", "model", "part", "settings", "options", "audio"}, and so is a denoiser, without
options. A streaming recogniser is {"task": "follow", "loader", "files", "tokens", "audio", "tail_s"}. The result holds `text`
and `tokens` (one per recording, joined by spaces), or `audio_<k>` and `sample_rate_hz`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import sherpa_onnx
import soundfile


def hear(job):
    load = getattr(sherpa_onnx.OfflineRecognizer, job.get("loader", "from_zipformer_ctc"))
    files = job.get("files") or {job.get("argument", "model"): job["model"]}
    recogniser = load(**files, tokens=job["tokens"], num_threads=1, **job.get("options", {}))
    texts, tokens = [], []
    for path in job["audio"]:
        audio, rate = soundfile.read(path, dtype="float32")
        stream = recogniser.create_stream()
        stream.accept_waveform(rate, audio)
        recogniser.decode_stream(stream)
        texts.append(stream.result.text.strip())
        tokens.append(" ".join(stream.result.tokens))
    return {"text": np.array(texts), "tokens": np.array(tokens)}


def follow(job):
    """Give what a streaming recogniser writes while each recording, and silence behind it, comes in."""
    recogniser = getattr(sherpa_onnx.OnlineRecognizer, job["loader"])(**job["files"], tokens=job["tokens"], num_threads=1)
    texts, tokens = [], []
    for path in job["audio"]:
        audio, rate = soundfile.read(path, dtype="float32")
        stream = recogniser.create_stream()
        for part in (audio, np.zeros(int(job["tail_s"] * rate), np.float32)):
            stream.accept_waveform(rate, part)
            while recogniser.is_ready(stream):
                recogniser.decode_stream(stream)
        stream.input_finished()
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)
        texts.append(recogniser.get_result(stream).strip())
        tokens.append(" ".join(recogniser.tokens(stream)))
    return {"text": np.array(texts), "tokens": np.array(tokens)}


def spoken_by(job):
    if "voice" in job:
        scales = {"noise_scale": job["noise_scale"], "noise_scale_w": 0.0, "length_scale": job.get("length_scale", 1.0)}
        voice = sherpa_onnx.OfflineTtsVitsModelConfig(model=job["voice"], lexicon="", tokens=job["tokens"], **scales)
        return sherpa_onnx.OfflineTtsModelConfig(vits=voice, num_threads=1)
    for kind in ("kokoro", "kitten"):
        if kind in job:
            part = getattr(sherpa_onnx, f"OfflineTts{kind.capitalize()}ModelConfig")
            files = {"model": job[kind], "voices": job["voices"], "tokens": job["tokens"]}
            return sherpa_onnx.OfflineTtsModelConfig(**{kind: part(**files, lexicon="")}, num_threads=1)
    matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=job["acoustic"], vocoder=job["vocoder"], lexicon="",
        tokens=job["tokens"],
        noise_scale=job["noise_scale"],
    )  # fmt: skip
    return sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, num_threads=1)


def speak(job):
    model = spoken_by(job)
    # The library scales pauses unless it is told to leave them as they are.
    config = sherpa_onnx.OfflineTtsConfig(model=model, max_num_sentences=1, silence_scale=1.0)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    tts = sherpa_onnx.OfflineTts(config)
    spoken = []
    for text, phonemes in zip(job["texts"], job["phonemes"], strict=True):
        request = sherpa_onnx.GenerationConfig()
        request.sid = job.get("sid", 0)
        request.phoneme_codepoints = [[ord(symbol) for symbol in phonemes]]
        request.extra = {"min_words_in_sentence": "1000"}  # or a comma would begin a new sentence
        request.silence_scale = 1.0
        spoken.append(tts.generate(text, request))
    audio = {f"audio_{k}": np.asarray(speech.samples, np.float32) for k, speech in enumerate(spoken)}
    return {**audio, "sample_rate_hz": np.array(tts.sample_rate)}


def detect(job):
    """Tell step by step whether somebody speaks: `speech_<k>` of each recording."""
    part = getattr(sherpa_onnx, job["settings"])(model=job["model"], **job["options"])
    config = sherpa_onnx.VadModelConfig(**{job["part"]: part}, sample_rate=16_000, num_threads=1)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    found = {}
    for number, path in enumerate(job["audio"]):
        audio, _ = soundfile.read(path, dtype="float32")
        model = sherpa_onnx.VadModel.create(config)
        size = model.window_size()
        starts = range(0, len(audio) - size + 1, job["options"]["window_size"])
        found[f"speech_{number}"] = np.array([model.is_speech(audio[start : start + size].tolist()) for start in starts])
    return found


def denoise(job):
    """Give the audio that a denoiser makes of each recording."""
    part = getattr(sherpa_onnx, job["settings"])(model=job["model"])
    model = sherpa_onnx.OfflineSpeechDenoiserModelConfig(**{job["part"]: part}, num_threads=1)
    config = sherpa_onnx.OfflineSpeechDenoiserConfig(model=model)
    if not config.validate():
        sys.exit("sherpa-onnx refuses the configuration")
    denoiser = sherpa_onnx.OfflineSpeechDenoiser(config)
    given = [denoiser.run(*soundfile.read(path, dtype="float32")) for path in job["audio"]]
    audio = {f"audio_{k}": np.asarray(one.samples, np.float32) for k, one in enumerate(given)}
    return {**audio, "sample_rate_hz": np.array(denoiser.sample_rate)}


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    np.savez(
        sys.argv[2],
        **{"hear": hear, "follow": follow, "speak": speak, "detect": detect, "denoise": denoise}[wanted["task"]](wanted),
    )
