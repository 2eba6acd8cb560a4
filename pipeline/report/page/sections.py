"""What the page of one run shows: report.json, in the order and the words of a reader."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.page import plots
from pipeline.report.page.render import mib, ms
from pipeline.report.page.scores import LEADING_METRICS, TELLING_METRICS, difference_interval, metric_interval, worst_samples
from pipeline.report.table import number

Report = Mapping[str, Any]

VERDICT_ORDER = ("slower", "same", "faster")  # what disappoints is said first
TITLES = {
    "wer_percent": "Word error rate", "roundtrip_wer_percent": "Word error rate, heard", "accuracy_percent": "Accuracy",
    "truth_log_mel_l1": "Log-mel error", "posterior_kl": "Posteriors moved by", "log_mel_l1": "Log-mels moved by",
    "sqnr_db": "Signal to noise",
}  # fmt: skip
ERROR_UNITS = {"sqnr_db": "SQNR, dB", "relative_error": "relative error", "mse": "mean squared error"}


def verdicts(report: Report) -> list[dict[str, Any]]:
    """Return the verdict on each graph in words, slower ones first."""
    found = []
    for graph, measured in report.get("benchmark", {}).items():
        median = measured["speedup"]["median"]
        match measured["verdict"]:
            case "slower":
                words = f"Slower than fp32: {median:.2f} times its speed"
            case "faster":
                words = f"{median:.2f} times as fast as fp32"
            case _:
                words = f"No faster and no slower than fp32: {median:.2f} times its speed"
        found.append({"graph": graph, "kind": measured["verdict"], "words": words, "measured": measured})
    return sorted(found, key=lambda one: VERDICT_ORDER.index(one["kind"]))


def tiles(report: Report) -> list[dict[str, str]]:
    """Return the numbers of the top: a label, the quantized model's value, and what it is to be read against."""
    found = []
    several = len(report.get("artifacts", [])) > 1
    for artifact in report.get("artifacts", []):
        of = f" of {artifact['graph']}" if several else ""
        share = 100 * artifact["bytes"] / artifact["baseline_bytes"]
        found.append(_tile(f"Size{of}", mib(artifact["bytes"]), f"{share:.0f} % of fp32’s {mib(artifact['baseline_bytes'])}"))
        measured = report.get("benchmark", {}).get(artifact["graph"])
        if measured is None:
            continue
        found.append(_tile(f"Latency{of}", ms(measured["quantized_ms"]["p50"]),
                           f"median; fp32 {ms(measured['baseline_ms']['p50'])}"))  # fmt: skip
        if measured.get("rtf"):
            found.append(
                _tile(f"Speech{of}", f"{1 / measured['rtf']:.0f} ×", f"real time, fp32 {1 / measured['baseline_rtf']:.0f} ×")
            )
    return found + _quality_tiles(report)


def quality(report: Report) -> list[dict[str, Any]]:
    """Return the rows of the table of metrics: what is measured against the truth first."""
    rows = []
    for name, metric in report.get("evaluation", {}).get("metrics", {}).items():
        interval = metric_interval(report, name)
        gap = difference_interval(report, name)
        rows.append({"name": name, "metric": metric, "interval": interval, "gap": gap, "effect": _effect(metric, gap),
                     "against": "fp32" if _is_distance(name, metric) else "the truth"})  # fmt: skip
    first = {name: place for place, name in enumerate(dict.fromkeys((*LEADING_METRICS, *TELLING_METRICS)))}
    return sorted(rows, key=lambda row: (row["against"] == "fp32", first.get(row["name"], len(first))))


def worst(report: Report) -> dict[str, Any] | None:
    """Return the samples that quantization changed most, with the metrics that most of them have."""
    found = worst_samples(report)
    if found is None:
        return None
    name, samples = found
    columns = [name, *(key for key in samples[0].values if key != name and key in ("sqnr_db", "mcd_db", "max_abs_error"))]
    return {"by": name, "columns": columns, "samples": samples, "texts": any(sample.text for sample in samples)}


def node_errors(report: Report) -> list[dict[str, Any]]:
    """Return a picture of the error along each graph, and its worst nodes, where the report has `node_errors`."""
    found = []
    for number_, (graph, nodes_) in enumerate((report.get("node_errors") or {}).items()):
        key = next((key for key in ERROR_UNITS if nodes_ and key in nodes_[0]), None)
        if key is None:
            continue
        known = [node for node in nodes_ if node[key] is not None]
        worst_first = sorted(known, key=lambda node: node[key], reverse=key != "sqnr_db")
        unit, first = ERROR_UNITS[key], worst_first[0]
        description = f"{unit} of {len(known)} nodes of {graph}; worst at {first['node']}: {number(first[key])}."
        picture = plots.along_graph([node[key] for node in known], unit, f"nodes-{number_}", description)
        found.append({"graph": graph, "picture": picture, "unit": unit, "key": key, "worst": worst_first[:8]})
    return found


def nodes(report: Report) -> list[dict[str, Any]]:
    """Return each graph's nodes, grouped by how they compute now, or by why they were kept."""
    found = []
    for artifact in report.get("artifacts", []):
        quantized: dict[str, list[str]] = {}
        for node, precision in artifact.get("precisions", {}).items():
            quantized.setdefault(precision, []).append(node)
        kept: dict[str, list[str]] = {}
        for entry in artifact.get("kept", []):
            kept.setdefault(entry["reason"], []).append(entry["node"])
        if quantized or kept:
            found.append(
                {"graph": artifact["graph"], "quantized": quantized, "kept": kept, "kernels": artifact.get("kernels", {})}
            )
    return found


def inputs(report: Report) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the files that a run has read, grouped by their folder."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in report.get("inputs", []):
        folder, _, name = entry["path"].rpartition("/")
        groups.setdefault(folder or ".", []).append(entry | {"name": name})
    return list(groups.items())


def _tile(label: str, value: str, against: str) -> dict[str, str]:
    return {"label": label, "value": value, "against": against}


def _quality_tiles(report: Report) -> list[dict[str, str]]:
    metrics = report.get("evaluation", {}).get("metrics", {})
    leading = [name for name in LEADING_METRICS if name in metrics]
    truth = next((name for name in leading if not _is_distance(name, metrics[name])), None)
    distance = next((name for name in leading if _is_distance(name, metrics[name])), None)
    found = []
    for name in (truth, distance):
        if name is None:
            continue
        metric = metrics[name]
        unit = f" {metric['unit']}" if metric["unit"] else ""
        against = (
            "KL divergence from fp32"
            if name == "posterior_kl"
            else "away from fp32’s"
            if name == distance
            else f"fp32 {metric['baseline']:.3g}{unit}"
        )
        if name == truth and (effect := _effect(metric, difference_interval(report, name))):
            against += f", {effect}"
        if name == distance and metric["higher_is_better"]:
            against = "against fp32, higher is better"
        found.append(
            _tile(
                TITLES.get(name, name), f"{metric['quantized']:.3g}{unit}" if metric["quantized"] is not None else "∞", against
            )
        )
    return found


def _is_distance(name: str, metric: Mapping[str, Any]) -> bool:
    from pipeline.metrics import METRICS

    return METRICS[name].baseline is not None if name in METRICS else metric["baseline"] in (0, None)


def _effect(metric: Mapping[str, Any], gap: Any) -> str | None:  # noqa: ANN401
    """Return what quantization did to a metric against the truth, as far as its paired interval tells."""
    if gap is None:
        return None
    if gap.low <= 0 <= gap.high:
        return "no difference beyond noise"
    return "better" if (gap.value > 0) == metric["higher_is_better"] else "worse"
