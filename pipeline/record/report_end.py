"""The report of a run that could not write it to its end: the process was killed, or the disk is full."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pipeline.record.run_directory import PACKAGE_STAGING, REPORT_FILE, STAGING, write_text

SCHEMA = 2  # of the least that a report must hold
KEPT = ("schema", "status", "error", "model", "mode", "stages")  # where there is no room for more


def end_report(file: str, message: str | None = None) -> None:
    """Let a report that says `running` say `failed`, and remove what its run has not published.

    Called in another process, after that of the run has ended without a word: it was killed, or native code has ended it, or
    it had too little memory left to write.

    Args:
        file: report.json.
        message: what the run failed of, where it could still say so.
    """
    path = Path(file)
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("status") != "running":
        return
    running = next((stage["name"] for stage in report.get("stages", []) if stage.get("status") == "running"), None)
    mark_failed(
        path.parent,
        message
        or f"The process of the run ended{f' in the stage {running}' if running else ''}, and could not say why: it was killed "
        "(out of memory?), or native code has ended it. Run it again; if it ends there again, the model is what to look at.",
    )
    for name in (STAGING, PACKAGE_STAGING):
        shutil.rmtree(path.parent / name, ignore_errors=True)  # a link is left


def mark_failed(folder: Path, error: str) -> None:
    """Let the report of a run say that it failed; where there is no room for another file, in the place of the one there.

    Args:
        folder: of the run.
        error: what it failed of.
    """
    report: dict[str, Any] = {"schema": SCHEMA, "stages": []}
    with contextlib.suppress(OSError, ValueError):
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    report |= {"status": "failed", "error": error}
    for stage in report.get("stages") or []:
        if stage.get("status") == "running":
            stage["status"] = "failed"
    try:
        write_text(folder / REPORT_FILE, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except OSError:
        least = {key: report[key] for key in KEPT if key in report}
        with contextlib.suppress(OSError), (folder / REPORT_FILE).open("r+b", buffering=0) as stream:
            room = os.fstat(stream.fileno()).st_size
            text = json.dumps(least).encode()
            if len(text) > room:  # what is there takes its blocks already
                text = json.dumps({"schema": SCHEMA, "status": "failed", "error": error[: max(room - 100, 0)]}).encode()
            stream.write(text)
            stream.truncate()
