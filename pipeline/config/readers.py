"""Which settings are read by what: one that nothing reads in a run, though it was given, is an error.

Only what was given counts, not defaults, and not a value that asks for nothing (null, 0, false, []). What the stages of a
run leave out does not count either: `stages=[load]` tries a command line whose settings are read once all stages run. In a
sweep a setting may be meant for other jobs; there it is a warning. So is calibration data that is there, in a mode that needs
none: a command line whose mode alone is changed stays valid, and the report says that the data was not used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.config.choices import CalibrationKind, Format, RangeMethod
from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, StaticConfig, WeightOnlyConfig
from pipeline.config.settings import PackageConfig, RunConfig, TrackingConfig
from pipeline.evaluation_kind import EvaluationKind
from pipeline.paths import resolve_path
from pipeline.urls import is_url

GIVEN = re.compile(r"\+{0,2}([\w.]+)=(.*)", flags=re.DOTALL)
ASKS_FOR_NOTHING = frozenset({"null", "0", "0.0", "false", "[]", "{}", ""})
CALIBRATING = "mode=static or mode=auto"
OWN_DATA = (CalibrationKind.real, CalibrationKind.audio, CalibrationKind.manifest)


@dataclass(frozen=True)
class Reader:
    """What reads some settings.

    Attributes:
        where: in which runs, as the user chooses them: `mode.method=percentile`.
        reads: whether a run is one of them.
    """

    where: str
    reads: Callable[[RunConfig], bool]


def _modes(config: RunConfig) -> tuple[AnyModeConfig, ...]:
    return (config.mode, *config.graph_modes.values())


def calibrates(config: RunConfig) -> bool:
    """Return whether a mode of a run reads calibration data."""
    return any(isinstance(mode, StaticConfig | AutoConfig) for mode in _modes(config))


def times_choices(config: RunConfig) -> bool:
    """Return whether a mode of a run chooses by speed: a search, or rewrites that are kept where they are faster."""
    return any(isinstance(mode, AutoConfig) or mode.optimize for mode in _modes(config))


def _reads_text(config: RunConfig) -> bool:
    return hasattr(config.model, "asr_path")  # a text-to-speech model


def _hears_calibration(config: RunConfig) -> bool:
    return calibrates(config) and config.calibration.kind in OWN_DATA and not _reads_text(config)


def _evaluation_set(config: RunConfig) -> str | None:
    return config.evaluation.path or config.model.evaluation_path


def _hears_evaluation(config: RunConfig) -> bool:
    path = _evaluation_set(config)
    return path is not None and Path(path).suffix != ".npz" and not _reads_text(config)


def _makes_tracks(config: RunConfig) -> bool:
    return getattr(config.model, "track_s", None) is not None


def _method(method: RangeMethod) -> Callable[[RunConfig], bool]:
    return lambda config: getattr(config.mode, "method", None) is method


def _stores_blocks(config: RunConfig) -> bool:
    return not isinstance(config.mode, WeightOnlyConfig) or "MatMul" in config.mode.op_types


def _no_address(config: RunConfig) -> bool:
    return config.model.url is None


CALIBRATED = Reader(CALIBRATING, calibrates)
TIMED_ON_DEVICE = Reader(
    "benchmark.host=ssh://<user>@<host> or benchmark.host=adb://<serial>", lambda run: run.benchmark.host is not None
)
TIMED_BY_SSH = Reader("benchmark.host=ssh://<user>@<host>", lambda run: (run.benchmark.host or "").startswith("ssh://"))
READERS: Mapping[str, tuple[Reader, ...]] = {
    "calibration": (CALIBRATED,),
    "calibration.kind": (CALIBRATED,),
    "calibration.path": (
        CALIBRATED,
        Reader("any calibration but calibration=random", lambda run: run.calibration.kind is not CalibrationKind.random),
    ),
    "calibration.samples": (CALIBRATED,),
    "calibration.length": (
        CALIBRATED, Reader("calibration=random", lambda run: run.calibration.kind is CalibrationKind.random),
    ),
    "calibration.on_sample_rate": (CALIBRATED, Reader("calibration on recordings", _hears_calibration)),
    "calibration.on_bad_sample": (
        CALIBRATED,
        Reader("any calibration but calibration=random", lambda run: run.calibration.kind is not CalibrationKind.random),
    ),
    "evaluation.sample_rate_hz": (
        Reader("evaluation=audio", lambda run: run.evaluation.kind is EvaluationKind.audio),
    ),
    "evaluation.listen": (
        Reader(
            "evaluation=audio or evaluation=tts",
            lambda run: run.evaluation.kind in (EvaluationKind.audio, EvaluationKind.tts),
        ),
    ),
    "evaluation.silent_clips": (Reader("evaluation=asr", lambda run: run.evaluation.kind is EvaluationKind.asr),),
    "evaluation.on_sample_rate": (Reader("an evaluation on recordings", _hears_evaluation),),
    "evaluation.on_bad_sample": (
        Reader("an evaluation on data (evaluation.path)", lambda run: _evaluation_set(run) is not None),
    ),
    "mode.percentile": (Reader("mode.method=percentile", _method(RangeMethod.percentile)),),
    "mode.momentum": (Reader("mode.method=moving_average", _method(RangeMethod.moving_average)),),
    "mode.reconstruct": (Reader("mode.format=qdq", lambda run: getattr(run.mode, "format", Format.qdq) is Format.qdq),),
    "mode.reconstruct_seconds": (Reader("mode.reconstruct=true", lambda run: getattr(run.mode, "reconstruct", False)),),
    "mode.rewrites": (Reader("mode.optimize=true", lambda run: run.mode.optimize),),
    "mode.assume": (Reader("mode.optimize=true", lambda run: run.mode.optimize),),
    "mode.bits": (Reader("MatMul in mode.op_types", _stores_blocks),),
    "mode.block_size": (Reader("MatMul in mode.op_types", _stores_blocks),),
    "mode.accuracy_level": (Reader("MatMul in mode.op_types", _stores_blocks),),
    "model.path": (
        Reader("a model without model.dir and model.url", lambda run: run.model.dir is None and run.model.url is None),
    ),
    "model.dir": (Reader("a model without model.url", _no_address),),
    "model.sha256": (Reader("a model at model.url", lambda run: run.model.url is not None),),
    "model.noise_scale_w": (CALIBRATED,),
    "model.snr_db": (Reader("tracks that are made of recordings (model.track_s)", _makes_tracks),),
    "model.asr_path": (Reader("evaluation=tts", lambda run: run.evaluation.kind is EvaluationKind.tts),),
    "benchmark.host_python": (TIMED_ON_DEVICE,),
    "benchmark.ssh_config": (TIMED_BY_SSH,),
    **{
        f"tracking.{setting.name}": (Reader("tracking=mlflow", lambda run: run.tracking.kind is not None),)
        for setting in fields(TrackingConfig)
        if setting.name != "kind"
    },
    **{
        f"package.{setting.name}": (Reader("package=sherpa_onnx or package=onnx", lambda run: "package" in run.stages),)
        for setting in fields(PackageConfig)
        if setting.name != "kind"
    },
}  # fmt: skip
"""Setting, or group whose option is chosen -> what must hold for it to be read; any other setting is read in every run of
the mode, model or evaluation that has it."""


@dataclass(frozen=True)
class Unread:
    """A setting that was given and that a run never reads.

    Attributes:
        sentence: says so, and what reads it.
        needless_data: whether it names calibration data that is there, for a mode that needs none.
    """

    sentence: str
    needless_data: bool


def unread(config: RunConfig, overrides: Sequence[str]) -> list[Unread]:
    """Return the settings that were given and that this run never reads.

    Args:
        config: the run.
        overrides: what was given, as `key=value`.
    """
    found = []
    data = config.calibration.path
    needless = not calibrates(config) and data is not None and (is_url(data) or resolve_path(data).exists())
    given = {match[1]: match[2] for match in map(GIVEN.fullmatch, overrides) if match}  # of two values the last one counts
    for key, value in given.items():
        lacking = next((reader for reader in READERS.get(key, ()) if not reader.reads(config)), None)
        if lacking is not None and value not in ASKS_FOR_NOTHING:
            shown = key if "." in key else f"{key}={value}"
            sentence = (
                f"{shown}: would have no effect: this run lacks what reads it, {lacking.where}. Leave the setting out, or "
                "choose what reads it."
            )
            found.append(Unread(sentence, needless and key in ("calibration", "calibration.path")))
    return found


def read_by(setting: str) -> str:
    """Return what reads a setting, for the documentation: a sentence, or nothing where every run does."""
    readers = READERS.get(setting, ())
    return f"Only read by {' and '.join(dict.fromkeys(reader.where for reader in readers))}." if readers else ""
