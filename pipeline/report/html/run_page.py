"""The page of one run: report.json, the samples and the settings of a run, as one file for people."""

from pathlib import Path
from typing import Any

from pipeline.record.run_directory import CONFIG_FILE
from pipeline.report.doctor_words import doctor_lines
from pipeline.report.html import sections, timing_section
from pipeline.report.html.language import in_language
from pipeline.report.html.length_table import lengths
from pipeline.report.html.listening import listening
from pipeline.report.html.pareto_position import places
from pipeline.report.html.render import command, render, shown_path
from pipeline.report.html.search_section import searches
from pipeline.report.html.transcripts import transcripts
from pipeline.report.schema import Report

SHOWN_TRANSCRIPTS = 20  # at most; the ones that quantization changed come first
SHOWN_FAULTLESS = 4  # where nothing went wrong, a few show what was said


def write_page(report: Report, directory: Path, language: str = "en") -> str:
    """Return the text of report.html: one file that needs no network and no other file; its one script plays audio.

    What the report has nothing about is left out.

    Args:
        report: of a run in whatever state.
        directory: of the run; its samples/*.wav and its config.yaml are read.
        language: en or zh.
    """
    with in_language(language):
        return _page(report, directory)


def _page(report: Report, directory: Path) -> str:
    said = [] if report.evaluation is None else transcripts(report.evaluation.per_sample)
    faulty = sum(one.changed or not one.faultless for one in said)
    config = directory / CONFIG_FILE
    shown = shown_path(directory)
    trail = [part for part in (report.model, report.mode, directory.name) if part]
    view: dict[str, Any] = {
        "title": " · ".join(trail),
        "trail": trail,
        "report": report,
        "diagnosis": doctor_lines(report),
        "headline": sections.quality_headline(report),
        "verdicts": sections.verdicts(report),
        "tiles": sections.tiles(report),
        "speed": timing_section.speed(report),
        "time": timing_section.time_by_op(report),
        "quality": sections.quality(report),
        "lengths": lengths(report),
        "worst": sections.worst(report),
        "listening": listening(report, directory),
        "transcripts": said[: min(SHOWN_TRANSCRIPTS, max(SHOWN_FAULTLESS, faulty))],
        "transcripts_faulty": faulty,
        "transcript_count": len(said),
        "transcripts_changed": sum(one.changed for one in said),
        "places": places(report, directory),
        "searches": searches(report),
        "node_errors": sections.node_errors(report),
        "nodes": sections.nodes(report),
        "inputs": sections.inputs(report),
        "config": config.read_text(encoding="utf-8").strip() if config.is_file() else None,
        "command": command("rerun", shown) if config.is_file() else None,
        "directory": shown,
    }
    return render("report.html.j2", view, "player.js" if view["listening"].sentences else None)
