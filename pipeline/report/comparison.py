"""Several runs side by side: what a sweep prints, and writes beside its multirun.yaml, when it is over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from pipeline.report.table import VERDICT_STYLES, number
from pipeline.run_directory import REPORT_FILE

# The metric that each kind of evaluation is read by first: the fine one and the one that users know.
LEADING_METRICS = (
    "wer_percent", "roundtrip_wer_percent", "accuracy_percent", "truth_log_mel_l1", "posterior_kl", "log_mel_l1", "sqnr_db",
)  # fmt: skip


class CompareSweep(Callback):
    """Collects the runs of a sweep and compares them at its end."""

    def __init__(self) -> None:
        """Start without runs."""
        self._directories: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ANN401
        """Note where a job has written."""
        del config, kwargs
        if job_return.working_dir is not None:
            self._directories.append(Path(job_return.working_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Print the comparison, and write it."""
        del kwargs
        reports = [(path, read_report(path)) for path in self._directories]
        rows = [row for path, report in reports if report is not None for row in rows_of(path, report)]
        if not rows:
            return
        Console().print(comparison_table(rows))
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def read_report(directory: Path) -> dict[str, Any] | None:
    """Return a run's report, or None where it has none."""
    path = directory / REPORT_FILE
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(report, dict)
    return report


def rows_of(directory: Path, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per graph of a run: what was done, at what price, to what effect."""
    base = {"model": report["model"], "mode": report["mode"], "directory": str(directory), "status": report["status"]}
    if report["status"] != "done":
        return [base | {"error": report.get("error")}]
    quantize_seconds = next((s["seconds"] for s in report["stages"] if s["name"] == "quantize"), None)
    metrics = report.get("evaluation", {}).get("metrics", {})
    return [
        base
        | {
            "graph": artifact["graph"],
            "quantize_seconds": quantize_seconds,
            "data": _data(report),
            "bytes": artifact["bytes"],
            "baseline_bytes": artifact["baseline_bytes"],
            "speedup": report.get("benchmark", {}).get(artifact["graph"], {}).get("speedup"),
            "verdict": report.get("benchmark", {}).get(artifact["graph"], {}).get("verdict"),
            "metrics": {name: metrics[name] for name in LEADING_METRICS if name in metrics},
        }
        for artifact in report.get("artifacts", [])
    ]


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the runs as a table."""
    table = Table(title="The runs of this sweep", title_justify="left")
    for column in ("model", "mode", "calibrated on", "quantize", "size", "speed-up", "quality: fp32 -> quantized"):
        table.add_column(column, justify="right" if column in ("quantize", "size") else "left")
    for row in rows:
        if row["status"] != "done":
            table.add_row(row["model"], row["mode"], "", "", "", f"[bold red]{row['status']}[/]", str(row["error"]))
            continue
        quality = ", ".join(
            f"{name} {number(metric['baseline'])} -> {number(metric['quantized'])}"
            for name, metric in list(row["metrics"].items())[:3]
        )
        table.add_row(
            row["model"], row["mode"], row["data"], f"{row['quantize_seconds']:.1f} s",
            f"{row['bytes'] / row['baseline_bytes']:.2f}", _speedup(row), quality,
        )  # fmt: skip
    return table


def _data(report: dict[str, Any]) -> str:
    calibrated: str | None = report.get("calibrated_on")
    return calibrated or "no data"


def _speedup(row: dict[str, Any]) -> str:
    if row["speedup"] is None:
        return ""
    found = row["speedup"]
    return f"[{VERDICT_STYLES[row['verdict']]}]{found['median']:.2f}[/] ({found['low']:.2f}–{found['high']:.2f})"
