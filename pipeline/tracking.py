"""`tracking=mlflow`: what a run has come to, logged to a server or a database of MLflow as well.

Everything is read from the run's directory, after it is written: the run does not depend on what keeps it. MLflow takes fewer
names and numbers than a report holds; what it would refuse or change is logged under another name, or as a text, and
`tracking.json` lists it.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import posixpath
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.config.compose import to_tracking
from pipeline.config.settings import TrackingConfig
from pipeline.record.run_directory import CONFIG_FILE, PAGE_FILE, REPORT_FILE, write_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

FILE = "tracking.json"
LOG_FILE = "run.log"
LOCK = ".lock"  # added to the name of a database of SQLite, which several jobs of a sweep write
LONGEST_NAME, LONGEST_VALUE, LONGEST_TAG = 250, 6000, 4000  # MLflow's; it cuts longer values
AT_ONCE = 100  # of one kind in one request
NOT_TAKEN = re.compile(r"[^\w\-. :/]")  # in names
SURROUNDINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # 7, with pauses that double, would hold up a run for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
UNDEFINED = "infinite or undefined"


@dataclass
class Logged:
    """What MLflow is given of a run.

    Attributes:
        metrics: numbers.
        params: settings, as texts.
        tags: texts.
        names: name in MLflow -> name in the run's files, where they differ.
        not_held: name -> what MLflow does not take as it is, and what stands for it.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    not_held: dict[str, str] = field(default_factory=dict)

    def add_metric(self, name: str, value: float | None) -> None:
        """Add a number; what is none becomes a tag: MLflow gives back 1.8e308 for infinity."""
        if value is None or not math.isfinite(value):
            self.not_held[name] = f"{UNDEFINED}: a tag"
            self.tags[self._named(name)] = UNDEFINED
        else:
            self.metrics[self._named(name)] = float(value)

    def add_param(self, name: str, value: str) -> None:
        """Add a setting."""
        if len(value) > LONGEST_VALUE:
            self.not_held[name] = f"{len(value)} characters are too long: its beginning; all of it is in {CONFIG_FILE}"
            value = f"{value[: LONGEST_VALUE - 1]}…"
        self.params[self._named(name)] = value

    def add_tag(self, name: str, value: str) -> None:
        """Add a text."""
        self.tags[self._named(name)] = value if len(value) <= LONGEST_TAG else f"{value[: LONGEST_TAG - 1]}…"

    def _named(self, name: str) -> str:
        """Return the name in MLflow: the same one, or one that it takes and that no other name has got."""
        known = safe_name(name)
        if known != name:
            taken = {*self.metrics, *self.params, *self.tags} - {key for key, own in self.names.items() if own == name}
            if known in taken:
                known = f"{known[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
            self.names[known] = name
        return known


def safe_name(name: str) -> str:
    """Return a name that MLflow takes: of letters, digits and `_-. :/`, no path that leads elsewhere, not too long."""
    kept = NOT_TAKEN.sub("_", name)
    if kept != posixpath.normpath(kept) or kept.startswith(("/", "..")) or kept in ("", "."):
        kept = kept.replace("/", "_").replace("..", "__")
        kept = kept if kept not in ("", ".") else "_"
    return kept[:LONGEST_NAME]


def logged_of(report: Mapping[str, Any], settings: Mapping[str, Any], tags: Mapping[str, str]) -> Logged:
    """Return what MLflow is given of a run.

    Args:
        report: report.json.
        settings: config.yaml.
        tags: further texts.
    """
    found = Logged()
    for name, value in _leaves(settings):
        found.add_param(name, "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
    for name, value in _numbers(report):
        found.add_metric(name, value)
    given = {"model": report.get("model"), "mode": report.get("mode"), "status": report.get("status"), **tags}
    given |= {f"verdict.{key}": value for key, value in (report.get("verdict") or {}).items()}
    for name, value in {**given, "error": report.get("error")}.items():
        if value is not None:
            found.add_tag(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return found


def _numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Yield the numbers of a report that a run is judged by."""
    evaluation = report.get("evaluation") or {}
    if "samples" in evaluation:
        yield "evaluation.samples", evaluation["samples"]
    parts: dict[str, Any] = {"": evaluation.get("metrics") or {}, "benchmark.": report.get("benchmark") or {}}
    parts["artifacts."] = {one["graph"]: _sized(one) for one in report.get("artifacts") or []}
    parts["stages."] = {one["name"]: {"seconds": one.get("seconds")} for one in report.get("stages") or []}
    for prefix, part in parts.items():
        for name, value in _leaves(part):
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{prefix}{name}", value
            elif value is None and prefix == "" and name.rpartition(".")[2] in ("baseline", "quantized", "delta"):
                yield name, None


def _sized(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {key: artifact.get(key) for key in ("bytes", "baseline_bytes")}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield what is no dict, by the keys that lead to it; a list of dicts by their places, another list whole."""
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{name}.{place}")
    else:
        yield name, value


@contextlib.contextmanager
def tracked(composed: DictConfig, folder: Path) -> Iterator[None]:
    """Log a run at its end, also where it has failed; one that is interrupted is logged when it goes on.

    A server that is down, or anything else that MLflow refuses, is a warning: the run is done, and stays so.

    Raises:
        ConfigError: before the run: a setting of what keeps runs is wrong.
    """
    settings, hydra = to_tracking(composed), HydraConfig.get()
    tags = {"sweep": str(Path(hydra.sweep.dir).absolute()), "job": str(hydra.job.num)} if hydra.mode is RunMode.MULTIRUN else {}
    try:
        yield
    except Exception:
        _track(settings, folder, tags)
        raise
    _track(settings, folder, tags)


def _track(settings: TrackingConfig, folder: Path, tags: Mapping[str, str]) -> None:
    if settings.kind is None or not (folder / REPORT_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        return
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    uri = uri_of(settings)
    try:
        with _alone_in(uri), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its libraries, about each other
            failed = _log_run(uri, settings, folder, tags)
    except Exception as error:  # whatever MLflow, SQLAlchemy or the network raise
        told = str(error).strip().splitlines() or [type(error).__name__]
        log.warning(
            "tracking.uri: the run is complete, but could not be logged to %s: %s", without_password(uri), told[0][:500]
        )
        log.debug("tracking", exc_info=True)
        return
    for file, why in failed.items():
        log.warning("tracking: %s could not be logged: %s", file, why)


def uri_of(settings: TrackingConfig) -> str:
    """Return where runs are logged; MLflow's own default is a database in the working directory as well."""
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def without_password(uri: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


@contextlib.contextmanager
def _alone_in(uri: str) -> Iterator[None]:
    """Keep other jobs out of a database of SQLite: they would meet while its tables are made."""
    if not uri.startswith("sqlite:///") or sys.platform == "win32":
        yield
        return
    import fcntl

    place = Path(f"{uri.removeprefix('sqlite:///')}{LOCK}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _log_run(uri: str, settings: TrackingConfig, folder: Path, tags: Mapping[str, str]) -> dict[str, str]:
    """Log a run; return the files that could not be, and why."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    plain = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    found = logged_of(report, plain, {"directory": str(folder.absolute()), **tags})
    client = MlflowClient(tracking_uri=uri)
    run = _run_in(client, without_password(uri), settings.experiment, folder, report)
    now = _milliseconds(folder / REPORT_FILE)
    batches: list[tuple[str, list[Any]]] = [
        ("metrics", [Metric(name, value, now, 0) for name, value in found.metrics.items()]),
        ("params", [Param(name, value) for name, value in found.params.items()]),
        ("tags", [RunTag(name, value) for name, value in found.tags.items()]),
    ]
    for kind, entries in batches:
        for start in range(0, len(entries), AT_ONCE):
            client.log_batch(run, **{kind: entries[start : start + AT_ONCE]})
    written = {
        "uri": without_password(uri), "experiment": settings.experiment, "run_id": run, "names": found.names,
        "not_held": found.not_held,
    }  # fmt: skip
    write_text(folder / FILE, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    failed = {}
    for file in _files(folder, report, models=settings.models):
        try:
            client.log_artifact(run, str(folder / file))
        except Exception as error:  # one file that a store does not take, by its name or its size
            failed[file] = (str(error).strip().splitlines() or [type(error).__name__])[0]
    client.set_terminated(run, "FINISHED" if report.get("status") == "done" else "FAILED", end_time=now)
    return failed


def _run_in(client: "MlflowClient", uri: str, experiment: str, folder: Path, report: Mapping[str, Any]) -> str:
    """Return the id of the run in MLflow: a new one, or that which this directory was logged as before it went on."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if (before["uri"], before["experiment"]) == (uri, experiment):
            return str(client.get_run(before["run_id"]).info.run_id)
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id
    seconds = sum(stage.get("seconds") or 0.0 for stage in report.get("stages") or [])
    begun = _milliseconds(folder / REPORT_FILE) - int(1000 * seconds)
    return str(client.create_run(number, start_time=begun, run_name=_run_name(folder, report)).info.run_id)


def _run_name(folder: Path, report: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in (report.get("model"), report.get("mode"), folder.name) if part)


def _files(folder: Path, report: Mapping[str, Any], *, models: bool) -> Sequence[str]:
    """Return the names of the files that are logged."""
    made = [one["file"] for one in report.get("artifacts") or []] if models else []
    names = [REPORT_FILE, PAGE_FILE, CONFIG_FILE, LOG_FILE, FILE, *made, *(f"{file}.data" for file in made)]
    return [name for name in names if (folder / name).is_file() and not (folder / name).is_symlink()]


def _milliseconds(file: Path) -> int:
    return int(1000 * file.stat().st_mtime)
