"""Several runs side by side: `compare=[...]`, and what a sweep shows at its end.

Only runs of the same graph on the same machine, libraries and evaluation set are ranked together; others are shown in
groups of their own, and the comparison says why.
"""

import glob
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.record.run_directory import REPORT_FILE, write_text
from pipeline.report.ranking import DEFAULT_ORDER, Comparison, FailedRun, Group, RankedRun, has, ranked_groups
from pipeline.report.report_file import DamagedReportError, read_report
from pipeline.report.run_rows import Row, rows_of, why_not_done
from pipeline.report.schema import Report
from pipeline.typed_json import to_json

JSON_FILE = "comparison.json"
PAGE_FILE = "comparison.html"


def compare_runs(patterns: Sequence[str], sort_by: str | None = None) -> Comparison:
    """Compare the runs of these directories.

    Args:
        patterns: runs' directories, or globs of them.
        sort_by: a metric, speedup, bytes, latency_ms, ...; None: speedup.

    Raises:
        ConfigError: a directory is not a run's, a glob matches nothing, a report is of another schema, or no run
            has what to sort by.
    """
    return compare_directories(find_runs(patterns), sort_by)


def compare_directories(directories: Sequence[Path], sort_by: str | None = None) -> Comparison:
    """Compare runs whose directories are known; one without a report that can be read is listed as failed.

    Raises:
        ConfigError: a report is of another schema, or there is nothing of that name to sort by.
    """
    rows: list[Row] = []
    failed: list[FailedRun] = []
    for directory in directories:
        report = _read(directory)
        if isinstance(report, FailedRun):
            failed.append(report)
            continue
        found = rows_of(directory, report)
        rows += found
        if not found:
            failed.append(FailedRun(str(directory), _label(report, directory), "done", "It has quantized nothing."))
    order = sort_by or DEFAULT_ORDER
    groups = ranked_groups(rows, order)
    return Comparison(groups, failed, _notes(groups, order), order)


def find_runs(patterns: Sequence[str]) -> list[Path]:
    """Return the directories of runs that are named, each once, in the order of the names.

    Raises:
        ConfigError: nothing is named, a directory is not a run's, or a glob matches no run.
    """
    if not patterns:
        raise ConfigError("compare: names no run. Give directories or globs: compare=[outputs/matcha/static/*,...].")
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).exists():  # also a directory whose name holds a bracket
            found[_run_at(Path(pattern))] = None
            continue
        if not glob.has_magic(pattern):
            raise ConfigError(
                f"compare: {pattern} does not exist. A run's directory looks like outputs/<model>/<mode>/<timestamp>."
            )
        found_paths = glob.glob(pattern, recursive=True)  # noqa: PTH207  Path.glob knows no absolute patterns
        matches = sorted(map(Path, found_paths))
        runs = [path.parent if path.name == REPORT_FILE else path for path in matches]
        runs = [path for path in runs if path.is_dir() and (path / REPORT_FILE).is_file()]
        if not runs:
            what = f"matches {len(matches)} places, but no run" if matches else "matches nothing"
            raise ConfigError(f"compare: {pattern} {what}. Runs are three levels deep: outputs/<model>/<mode>/<timestamp>.")
        found |= dict.fromkeys(runs)
    return list(found)


def write_comparison(comparison: Comparison, folder: Path, language: str = "en") -> Path:
    """Write comparison.json and comparison.html into a folder, the page in this language; return the page's path."""
    from pipeline.report.html.comparison_page import comparison_page
    from pipeline.report.html.language import in_language

    folder.mkdir(parents=True, exist_ok=True)
    entries = [_ranked_entry(run) for run in comparison.runs] + [_failed_entry(run) for run in comparison.failed]
    text_of_entries = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    with in_language(language):
        page = comparison_page(comparison, folder)
    for name, text in ((JSON_FILE, text_of_entries), (PAGE_FILE, page)):
        write_text(folder / name, text)
    return folder / PAGE_FILE


def _run_at(path: Path) -> Path:
    directory = path.parent if path.name == REPORT_FILE else path
    if (directory / REPORT_FILE).is_file():
        return directory
    inside = sorted(directory.rglob(REPORT_FILE)) if directory.is_dir() else []
    hint = (
        f" Runs lie deeper in it: compare=[{directory}/{'*/' * len(inside[0].parent.relative_to(directory).parts)}]."
        if inside
        else ""
    )
    raise ConfigError(f"compare: {path} is not a run's directory: it has no {REPORT_FILE}.{hint}")


def _read(directory: Path) -> Report | FailedRun:
    try:
        report = read_report(directory, "compare")
    except DamagedReportError as error:
        return FailedRun(str(directory), directory.name, "damaged", error.reason)
    if report.status == "done":
        return report
    return FailedRun(str(directory), _label(report, directory), report.status, why_not_done(report))


def _ranked_entry(run: RankedRun) -> dict[str, object]:
    """Return a run as comparison.json holds it."""
    return {**to_json(run.row), "rank": run.rank, "front": run.front, "best": list(run.best), "ties": list(run.ties)}


def _failed_entry(run: FailedRun) -> dict[str, object]:
    return {"directory": run.directory, "status": run.status, "error": run.error, "run": run.label}


def _label(report: Report, directory: Path) -> str:
    return " ".join(part for part in (report.model, report.mode, directory.name) if part)


def _notes(groups: Sequence[Group], order: str) -> list[str]:
    notes = []
    for index, group in enumerate(groups):
        earlier = [other for other in groups[:index] if other.conditions["graph"] == group.conditions["graph"]]
        if earlier:
            here, there = group.conditions, earlier[0].conditions
            apart = [f"{key} {here[key]}, there {there[key]}" for key in here if here[key] != there[key]]
            notes.append(f"{_named(group)} not ranked with {_ranks(earlier[0])}: {'; '.join(apart)}.")
        missing = [str(run.rank) for run in group.runs if not has(run.row, order)]
        if 0 < len(missing) < len(group.runs):
            notes.append(f"Without {order}, so last: {', '.join(missing)}.")
    return notes


def _ranks(group: Group) -> str:
    return ", ".join(str(run.rank) for run in group.runs)


def _named(group: Group) -> str:
    return f"Runs {_ranks(group)} are" if len(group.runs) > 1 else f"Run {_ranks(group)} is"
