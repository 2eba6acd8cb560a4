"""All runs below a directory: what outputs/index.html shows.

A refresh reads the reports that are new or have changed; what it knows of the others is kept beside the page, in `.index.json`.
Reports may come from elsewhere: whatever is wrong with one is said of that one, and the others are shown.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.record.run_directory import REPORT_FILE, write_text
from pipeline.report.ranking import DEFAULT_ORDER, FailedRun, Group, ranked_groups
from pipeline.report.report_file import read_report
from pipeline.report.run_rows import Row, rows_of, why_not_done
from pipeline.typed_json import from_json, to_json

log = logging.getLogger(__name__)

MEMORY_FILE = ".index.json"
MEMORY_VERSION = 1
MOST_RUNS = 500  # on the page, the newest of them
MOST_BYTES = 64 << 20  # of a report: one of a thousand samples has 1 MiB


@dataclass(frozen=True)
class IndexedRun:
    """A run as far as the page needs it.

    Attributes:
        directory: relative to that of the index.
        stamp: time of change and size of its report, which tell whether it was read before.
        status: of the run, or `damaged`.
        label: its name for people.
        reason: why it has no numbers.
        rows: its numbers; `directory` in them is the one above.
    """

    directory: str
    stamp: list[int]
    status: str
    label: str
    reason: str = ""
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class RunIndex:
    """All runs below a directory.

    Attributes:
        groups: runs that may be ranked together.
        failed: runs without numbers, the newest first.
        unread: how many runs are known and not shown.
    """

    groups: list[Group]
    failed: list[FailedRun]
    unread: int

    @property
    def count(self) -> int:
        """How many runs are shown, those without numbers too."""
        return len({row.directory for group in self.groups for row in group.rows}) + len(self.failed)


def read_index(root: Path, most_new: int | None = None, memory: dict[str, IndexedRun] | None = None) -> RunIndex:
    """Read the runs below a directory, `<model>/<mode>/<timestamp>`.

    Args:
        root: the directory.
        most_new: how many reports are read at most that were not read before; None: all.
        memory: what is known of runs, by directory. It is brought up to date, nothing is written, and links are not followed:
            what a program needs that looks at a directory again and again. None: it is kept in a file beside the page.
    """
    known = remembered(root) if memory is None else dict(memory)
    found: list[IndexedRun] = []
    unread = new = 0
    for path, stamp in _reports(root, through_links=memory is None):
        directory = path.parent.relative_to(root).as_posix()
        run = known.get(directory)
        if run is None or run.stamp != stamp:
            if len(found) >= MOST_RUNS or (most_new is not None and new >= most_new):
                unread += 1
                continue
            run, new = _read(root, directory, stamp), new + 1
        elif len(found) >= MOST_RUNS:
            unread += 1
            continue
        found.append(run)
    if memory is not None:
        memory.clear()
        memory.update({run.directory: run for run in found})
    elif new or len(found) != len(known):
        _remember(root, found)
    rows = [row for run in found for row in run.rows]
    failed = [FailedRun(run.directory, run.label, run.status, run.reason) for run in found if not run.rows]
    return RunIndex(ranked_groups(rows, DEFAULT_ORDER), failed, unread)


def _reports(root: Path, *, through_links: bool) -> Iterator[tuple[Path, list[int]]]:
    """Yield the reports below a directory with their stamps, those of the newest runs first."""
    found = []
    for path in root.glob(f"*/*/*/{REPORT_FILE}"):
        if not through_links and any(place.is_symlink() for place in (path, *list(path.parents)[:3])):
            continue
        try:
            status = path.stat()
        except OSError:  # removed meanwhile
            continue
        found.append((path.parent.name, path, [status.st_mtime_ns, status.st_size]))
    yield from ((path, stamp) for _, path, stamp in sorted(found, reverse=True))


def _read(root: Path, directory: str, stamp: list[int]) -> IndexedRun:
    label = directory.replace("/", " ")
    if stamp[1] > MOST_BYTES:
        reason = f"{REPORT_FILE} has {stamp[1] >> 20} MiB; it is read up to {MOST_BYTES >> 20} MiB."
        return IndexedRun(directory, stamp, "damaged", label, reason)
    try:
        report = read_report(root / directory, "index")
        rows = [replace(row, directory=directory) for row in rows_of(root / directory, report)]
        if any(row.bytes <= 0 or row.baseline_bytes <= 0 for row in rows):
            raise ConfigError("its artifacts have no size")
    except ConfigError as error:
        return IndexedRun(directory, stamp, "damaged", label, getattr(error, "reason", str(error)))
    except Exception as error:  # a file from elsewhere, wrong in whatever way: the other runs are shown nevertheless
        log.debug("the report of %s", directory, exc_info=True)
        return IndexedRun(directory, stamp, "damaged", label, f"{REPORT_FILE} cannot be read: {type(error).__name__}: {error}")
    if report.status != "done":
        return IndexedRun(directory, stamp, report.status, label, why_not_done(report))
    return IndexedRun(directory, stamp, "done", label, "" if rows else "It has quantized nothing.", rows)


def remembered(root: Path) -> dict[str, IndexedRun]:
    """Return what is known from the last time: directory -> run; nothing where that cannot be read."""
    try:
        value = json.loads((root / MEMORY_FILE).read_text(encoding="utf-8"))
        if not isinstance(value, dict) or value.get("version") != MEMORY_VERSION:
            return {}
        runs = from_json(list[IndexedRun], value.get("runs"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {run.directory: run for run in runs}


def _remember(root: Path, runs: list[IndexedRun]) -> None:
    value = {"version": MEMORY_VERSION, "runs": to_json(runs)}
    replace_text(root / MEMORY_FILE, json.dumps(value, ensure_ascii=False, allow_nan=False))


def replace_text(target: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing: other runs may write it at the same time."""
    write_text(target, text)
