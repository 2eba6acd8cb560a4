"""What an interrupted run leaves: its page, and one line that says how far it came."""

from pathlib import Path

from pipeline.record.run_directory import PAGE_FILE, REPORT_FILE, RunDirectory
from pipeline.report.html.run_page import write_page
from pipeline.report.report_file import read_report, write_report
from pipeline.report.schema import Report
from pipeline.shell_words import shell_word


def keep_what_there_is(directory: RunDirectory, language: str) -> None:
    """Write the page of a run that was interrupted; where it had not begun to report, the report too.

    A run that was done, and interrupted while its page was written, is done.
    """
    if not (directory.path / REPORT_FILE).is_file():
        write_report(directory, Report("interrupted"))
    report = read_report(directory.path, "report")
    directory.write_text(PAGE_FILE, write_page(report, directory.path, language))


def so_far(folder: Path, whole: Path) -> str:
    """Return what an interrupted run has come to, in one line, and how it goes on.

    Args:
        folder: of the run.
        whole: of what is resumed: the run, or the sweep that it is a part of.
    """
    if not (folder / REPORT_FILE).is_file():
        return f"interrupted before anything was done in {folder}"
    report = read_report(folder, "report")
    done = [stage.name for stage in report.stages if stage.status == "done"]
    where = next((stage.name for stage in report.stages if stage.status == "interrupted"), None)
    files = [f"{artifact.graph}: {folder / artifact.file}" for artifact in report.artifacts or []]
    parts = [
        f"interrupted in {where}" if where else "interrupted",
        f"so far: {', '.join(done)}" if done else "no stage was done",
        *files,
        f"report: {folder / REPORT_FILE}",
        f"go on with {shell_word(f'resume={whole}')}",
    ]
    return "; ".join(parts)
