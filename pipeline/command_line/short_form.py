"""`speech-quantize model.onnx --calib recordings/`: what a model and its data tell, without a setting.

The kind of the model follows from its graph, that of the data from its path, the mode and the evaluation from both. The
settings that a short form stands for are printed; whatever is given beside it as a setting goes before them.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line.correction import NEAREST_FILE, CommandLineError
from pipeline.command_line.override_text import exists, with_home
from pipeline.config.choices import CalibrationKind
from pipeline.errors import ConfigError
from pipeline.paths import near_files
from pipeline.urls import is_url

SHORT_OPTIONS = {"--calib": "data", "--data": "data", "--eval": "eval"}
SHORT_KEYS = ("path", "data", "eval")
URLS = ("http://", "https://")
CALIBRATING = {"static", "auto"}  # modes that read calibration data
RECOGNISERS = (
    "asr", "nemo_transducer", "paraformer", "sense_voice", "streaming_zipformer", "whisper", "zipformer_ctc",
    "zipformer_transducer",
)  # fmt: skip


def expanded(given: Sequence[str], settings: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return the settings that a short form stands for, then those that were given.

    Args:
        given: the whole command line, for messages.
        settings: what was given as `key=value`, with `path`, `data` and `eval` among it.
        places: the model that was given without a key, if any.

    Raises:
        CommandLineError: there is data and no model, or two models.
        ConfigError: the model is none, or its data cannot be its.
    """
    values = {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in settings)}
    short = {key: values.pop(key) for key in SHORT_KEYS if key in values}
    rest = [text for text in settings if text.partition("=")[0] not in SHORT_KEYS]
    if places and "path" in short:
        raise CommandLineError(f"path={short['path']}: {places[0]} is the model already.", [*rest, *places])
    place = places[0] if places else short.get("path")
    named = sorted(values.keys() & {"model.path", "model.dir", "model.url"})
    found: dict[str, str] = {}
    if place is not None and named:
        left = [text for text in given if text not in (place, f"path={place}")]
        raise CommandLineError(f"{place}: {named[0]} names a model already.", left)
    if place is not None:
        found = _model(given, place, values.get("model"))
    elif not named and "model" not in values:
        key = "data" if "data" in short else "eval"
        told = f"{key}: of which model? Name one: path=<model.onnx>, or an option: model=vocoder."
        raise CommandLineError(told, ["model=vocoder", *given])
    model = values.get("model") or found.get("model") or "matcha"
    for key in ("data", "eval"):
        if key in short:
            _must_be_there(given, short[key], key)
    found |= _data(model, place, short.get("data"), short.get("eval"), values)
    return [*(f"{key}={value}" for key, value in found.items() if key not in values), *rest]


def _model(given: Sequence[str], place: str, chosen: str | None) -> dict[str, str]:
    """Return the settings of a model: its kind, and where it is."""
    if place.startswith(URLS):
        if chosen is None:
            raise CommandLineError(
                f"{place}: what a model at an address is cannot be seen before it is there; name its kind.",
                ["model=onnx", f"model.url={place}"],
            )
        return {"model.url": place}
    if is_url(place):
        if chosen is None:
            raise CommandLineError(
                f"{place}: what a model at a URL is cannot be seen before it is there; name its kind.",
                ["model=onnx", f"model.path={place}"],
            )
        return {"model.path": place}
    _must_be_there(given, place, "path", "*.onnx")
    path = Path(with_home(place))
    if chosen is not None:
        return {"model.dir" if path.is_dir() else "model.path": place}
    from pipeline.models.model_kind import model_kind  # reads ONNX files

    kind = model_kind(path)
    return {"model": kind.model, kind.key: place if kind.place == path else str(kind.place)}


def _must_be_there(given: Sequence[str], place: str, key: str, pattern: str = "*") -> None:
    """Check that there is a file or a folder.

    Raises:
        CommandLineError: there is none; with the name that is nearest to it.
    """
    if exists(place):
        return
    if is_url(place):
        setting = "evaluation.path" if key == "eval" else "calibration.path"
        raise ConfigError(f"{key}: {place} is a URL, at which short forms do not look. Give it as {setting}={place}.")
    told = near_files(Path(with_home(place)).absolute(), pattern)
    close = NEAREST_FILE.search(told)
    instead = str(Path(place).with_name(close[1])) if close else None
    raise CommandLineError(
        f"{key}: there is no file or folder {place}.{told}",
        [text.replace(place, instead) if text.endswith(place) else text for text in given] if instead else ["--help"],
    )


def _data(model: str, place: str | None, data: str | None, judged: str | None, given: dict[str, str]) -> dict[str, str]:
    """Return the settings that follow from the data: calibration, mode and evaluation."""
    mode = given.get("mode") or _mode(model, data)
    found = {} if "mode" in given else {"mode": mode}
    if data is not None:
        kind = _kind(data, "data")
        if model == "onnx" and kind is not CalibrationKind.arrays:
            raise ConfigError(
                f"data: {data} holds no arrays, and how recordings or texts become the inputs of {place or 'this model'} is "
                "not known. Give an .npz of arrays named <sample>/<input name>; or say what the model is: model=vocoder, "
                "model=hifigan, model=zipformer_ctc, model=matcha."
            )
        if CALIBRATING & set(mode.split(",")):
            found |= {"calibration": kind.name, "calibration.path": data}
    if (judged := judged or data) is not None:
        kind = _kind(judged, "eval" if judged != data else "data")
        untold = kind is CalibrationKind.audio and model in RECOGNISERS  # recordings without text: outputs are compared
        if untold or (kind is CalibrationKind.arrays and model != "onnx"):
            found["evaluation"] = "tensors"
        found["evaluation.path"] = judged
    return found


def _mode(model: str, data: str | None) -> str:
    """Return the mode that fits: static ranges need data; int8 ruins some layers of a HiFi-GAN, which a search finds."""
    if data is None:
        return "dynamic"
    return "auto" if model == "hifigan" else "static"


def _kind(path: str, key: str) -> CalibrationKind:
    from pipeline.data.utterance_sets import kind_of  # reads no audio, but imports what does

    return kind_of(Path(with_home(path)))
