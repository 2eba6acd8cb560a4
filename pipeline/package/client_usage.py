"""How a package is run with sherpa-onnx: the command, Python, Kotlin."""

from collections.abc import Sequence
from typing import assert_never

from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.package.collect_files import PackagedGraph

PROGRAMS = {
    Task.listen: ("sherpa-onnx-offline", ["recording.wav"]),
    Task.follow: ("sherpa-onnx", ["recording.wav"]),
    Task.speak: ("sherpa-onnx-offline-tts", ["--output-filename=speech.wav", '"Text to speak."']),
    Task.detect: ("sherpa-onnx-vad", ["recording.wav", "speech.wav"]),
    Task.denoise: ("sherpa-onnx-offline-denoiser", ["--input-wav=recording.wav", "--output-wav=clean.wav"]),
}
"""What a user types, and behind the options."""
IN_KOTLIN = {"use_itn": "useInverseTextNormalization"}
"""Settings that have another name there."""


def how_to_run(name: str, graphs: Sequence[PackagedGraph], layout: ClientLayout) -> str:
    """Return the section of a model card that says it: by command, in Python, on Android."""
    names = {graph.role: graph.name for graph in graphs}

    def name_of(file: ClientFile) -> str:
        return names[file.graph] if file.graph is not None else file.name

    program, last = PROGRAMS[layout.task]
    flags = [f"--{file.flag}={name_of(file)}" for file in layout.files]
    chosen = {} if layout.task is Task.speak else layout.options  # of speech, the scales of noise are left as they are
    prefix = layout.loader.removeprefix("from_")
    flags += [f"--{prefix}_{key}".replace("_", "-") + f"={value}" for key, value in chosen.items()]
    told = {} if layout.model_type is None else {"model_type": layout.model_type}
    flags += [f"--{key.replace('_', '-')}={value}" for key, value in told.items()]
    if layout.has_phonemes:
        flags.append(f"--{layout.loader}-data-dir=espeak-ng-data")
    command = " \\\n  ".join([program, *flags, *last])
    given = [f"{file.argument}={name_of(file)!r}" for file in layout.files]
    python = ",\n    ".join([*given, *(f"{key}={value!r}" for key, value in {**chosen, **told}.items())])
    paths = [f'{_camel(file.argument)} = "{name}/{name_of(file)}"' for file in layout.files]
    settings = [f"{IN_KOTLIN.get(key) or _camel(key)} = {_in_kotlin(value)}" for key, value in chosen.items()]
    has_table = layout.task in (Task.listen, Task.follow)  # the token table, which comes last: it belongs to another class
    kotlin = ", ".join([*paths[:-1], *settings, paths[-1]] if has_table else [*paths, *settings])
    return "\n".join(
        [
            "## Run it with sherpa-onnx",
            "",
            "Command line, C++ (the options are fields of the C++ and C API of the same names):",
            "",
            f"```\n{command}\n```",
            "",
            "Python:",
            "",
            f"```python\n{_python(layout, python)}\n```",
            "",
            f"Android: put this directory into `app/src/main/assets/{name}`, and build with",
            "",
            f"```kotlin\n{_kotlin(layout, kotlin, name)}\n```",
            *([_PHONEMES] if layout.has_phonemes else []),
        ]
    )


_PHONEMES = """
Versions before 2.0 turn text into phonemes themselves and need `espeak-ng-data`, which lies beside their models. Version 2.0
has no espeak-ng: give the phonemes, as `phoneme_codepoints` of `GenerationConfig`."""


def _python(layout: ClientLayout, arguments: str) -> str:
    read = 'audio, rate = soundfile.read("recording.wav", dtype="float32")\n'
    match layout.task:
        case Task.listen:
            return (
                "import sherpa_onnx, soundfile\n\n"
                f"recognizer = sherpa_onnx.OfflineRecognizer.{layout.loader}(\n    {arguments}\n)\n"
                f"{read}stream = recognizer.create_stream()\n"
                "stream.accept_waveform(rate, audio)\nrecognizer.decode_stream(stream)\nprint(stream.result.text)"
            )
        case Task.follow:
            return (
                "import numpy, sherpa_onnx, soundfile\n\n"
                f"recognizer = sherpa_onnx.OnlineRecognizer.{layout.loader}(\n    {arguments}\n)\n"
                f"{read}stream = recognizer.create_stream()\n"
                "for start in range(0, len(audio), 1600):  # as it comes from a microphone\n"
                "    stream.accept_waveform(rate, audio[start : start + 1600])\n"
                "    while recognizer.is_ready(stream):\n        recognizer.decode_stream(stream)\n"
                f"stream.accept_waveform(rate, numpy.zeros(int({layout.tail_s:g} * rate), numpy.float32))\n"
                "stream.input_finished()\n"
                "while recognizer.is_ready(stream):\n    recognizer.decode_stream(stream)\n"
                "print(recognizer.get_result(stream))"
            )
        case Task.speak:
            return _spoken(layout, arguments)
        case Task.detect:
            return (
                f"import sherpa_onnx, soundfile\n\nmodel = sherpa_onnx.{layout.kotlin}(\n    {arguments}\n)\n"
                f"vad = sherpa_onnx.VoiceActivityDetector(sherpa_onnx.VadModelConfig({layout.loader}=model))\n"
                f"{read}size = model.window_size\nfor start in range(0, len(audio), size):\n"
                "    vad.accept_waveform(audio[start : start + size])\n"
                "vad.flush()\nwhile not vad.empty():\n    print(vad.front.start / rate, len(vad.front.samples) / rate)\n"
                "    vad.pop()"
            )
        case Task.denoise:
            return (
                f"import sherpa_onnx, soundfile\n\npart = sherpa_onnx.{layout.kotlin}(\n    {arguments}\n)\n"
                f"model = sherpa_onnx.OfflineSpeechDenoiserModelConfig({layout.loader}=part)\n"
                "denoiser = sherpa_onnx.OfflineSpeechDenoiser(sherpa_onnx.OfflineSpeechDenoiserConfig(model=model))\n"
                f"{read}clean = denoiser.run(audio, rate)\n"
                'soundfile.write("clean.wav", clean.samples, clean.sample_rate)'
            )
        case _:
            assert_never(layout.task)


def _spoken(layout: ClientLayout, arguments: str) -> str:
    speak = 'speech = tts.generate("Text to speak.", sid=0, speed=1.0)'
    if layout.has_phonemes:
        speak = (
            "request = sherpa_onnx.GenerationConfig()\nrequest.phoneme_codepoints = [[ord(symbol) for symbol in phonemes]]\n"
            'speech = tts.generate("Text to speak.", request)'
        )
    return (
        f"import sherpa_onnx, soundfile\n\nvoice = sherpa_onnx.{layout.kotlin}(\n    {arguments}\n)\n"
        f"model = sherpa_onnx.OfflineTtsModelConfig({layout.loader}=voice)\n"
        "tts = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=model))\n"
        f'{speak}\nsoundfile.write("speech.wav", speech.samples, speech.sample_rate)'
    )


def _kotlin(layout: ClientLayout, arguments: str, name: str) -> str:
    if layout.task is Task.speak:
        data = f', dataDir = "{name}/espeak-ng-data"' if layout.has_phonemes else ""
        return (
            f"val model = OfflineTtsModelConfig({layout.loader} = {layout.kotlin}({arguments}{data}))\n"
            "val tts = OfflineTts(assetManager = application.assets, config = OfflineTtsConfig(model = model))"
        )
    if layout.task is Task.detect:
        field = layout.kotlin[0].lower() + layout.kotlin[1:]
        return (
            f"val config = VadModelConfig({field} = {layout.kotlin}({arguments}))\n"
            "val vad = Vad(assetManager = application.assets, config = config)"
        )
    if layout.task is Task.denoise:
        return (
            f"val model = OfflineSpeechDenoiserModelConfig({layout.loader} = {layout.kotlin}({arguments}))\n"
            "val denoiser = OfflineSpeechDenoiser(application.assets, OfflineSpeechDenoiserConfig(model))"
        )
    *graphs, tokens = arguments.split(", ")
    tokens += "" if layout.model_type is None else f', modelType = "{layout.model_type}"'
    when = "Online" if layout.task is Task.follow else "Offline"
    field = layout.kotlin.removeprefix(when).removesuffix("ModelConfig")
    return (
        f"val model = {when}ModelConfig({field[0].lower()}{field[1:]} = {layout.kotlin}({', '.join(graphs)}), {tokens})\n"
        f"val recognizer = {when}Recognizer(\n    assetManager = application.assets,\n"
        f"    config = {when}RecognizerConfig(modelConfig = model),\n)"
    )


def _in_kotlin(value: float | str) -> str:
    """Return a number or a text as Kotlin writes it: of numbers, those that are not whole are `Float`."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value}F" if isinstance(value, float) else str(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
