"""README.md of a package: a model card in the format of Hugging Face, with what was measured, and how the model is run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.graph.runtime_versions import same_series
from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.metrics.metric_registry import METRICS, in_reading_order
from pipeline.models.client_layout import ClientLayout, Task
from pipeline.package.client_usage import how_to_run
from pipeline.package.collect_files import CHECKSUMS, ORIGINAL_README, PackagedGraph
from pipeline.quantize.artifact import Artifact
from pipeline.record.packaged import ClientTrial

PIPELINE_TAGS = {
    Task.listen: "automatic-speech-recognition", Task.follow: "automatic-speech-recognition", Task.speak: "text-to-speech",
    Task.detect: "voice-activity-detection", Task.denoise: "audio-to-audio",
}  # fmt: skip
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        name: of the model.
        mode: of the run.
        license: an SPDX identifier; None: not known.
        language: an ISO 639 code; None: not known.
        data: what the figures of quality are of.
        processor: what speed was measured on.
        artifacts: role -> what was made.
        benchmarks: role -> its speed; empty where it was not measured.
        metrics: name -> baseline, quantized, unit; empty where quality was not measured.
        samples: how many they are of.
        trial: what the client made of the package.
    """

    name: str
    mode: str
    license: str | None
    language: str | None
    data: str
    processor: str
    artifacts: Mapping[str, Artifact]
    benchmarks: Mapping[str, GraphBenchmark]
    metrics: Mapping[str, Mapping[str, Any]]
    samples: int
    trial: ClientTrial | None


def model_card(facts: CardFacts, graphs: Sequence[PackagedGraph], layout: ClientLayout | None, *, original: bool) -> str:
    """Return the text.

    Args:
        facts: what was measured.
        graphs: what is in the package.
        layout: how the client is given the model; None: there is no client.
        original: the package holds the README of the original.
    """
    parts = [_front_matter(facts, layout), f"# {facts.name}, quantized ({facts.mode})", _what_it_is(facts, layout, original)]
    parts += [_figures(facts)]
    if layout is not None:
        parts += [how_to_run(facts.name, graphs, layout)]
    parts += [
        f"## Files\n\nThe files are as they were made if `sha256sum -c {CHECKSUMS}` says so. Each graph is one file unless it "
        "is larger than 2 GB: sherpa-onnx 1.10 does not read weights beside a graph, and 1.12.26 looks for them in the current "
        "directory."
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts, layout: ClientLayout | None) -> str:
    """Return the YAML at the top; each value is JSON, which YAML reads."""
    rates = {METRICS[name].hub_name: found for name, found in facts.metrics.items() if METRICS[name].hub_name}
    entries: dict[str, Any] = {"license": facts.license or "other"}
    if facts.language and LANGUAGE_CODE.fullmatch(facts.language):  # metadata may say "English"
        entries["language"] = facts.language
    entries["library_name"] = "sherpa-onnx" if layout is not None else "onnxruntime"
    if layout is not None:
        entries["pipeline_tag"] = PIPELINE_TAGS[layout.task]
    entries["tags"] = ["onnx", "quantized", *sorted({found.path.suffixes[-2][1:] for found in facts.artifacts.values()})]
    if rates and layout is not None:
        task = {"type": PIPELINE_TAGS[layout.task]}
        results = [
            {
                "task": task,
                "dataset": {"name": facts.data, "type": "custom"},
                "metrics": [{"type": name, "value": round(float(found["quantized"]), 3)}],
            }
            for name, found in rates.items()
        ]
        entries["model-index"] = [{"name": facts.name, "results": results}]
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return f"---\n{lines}\n---"


def _what_it_is(facts: CardFacts, layout: ClientLayout | None, original: bool) -> str:
    needs = max((found.needs.version for found in facts.artifacts.values()), default=None)
    said = ["Made from the float model by speech-quantization-pipeline; the run's `config.yaml` makes it again."]
    if layout is not None and layout.task is Task.speak:
        said.append("Its speech is synthetic; say so where people hear it.")
    if needs is not None:
        said.append(f"Runs on ONNX Runtime {'.'.join(map(str, needs))} and later.")
    said.append(
        f"The licence is that of the original model: {facts.license}."
        if facts.license
        else "The licence is that of the original model; set `package.license` to name it here."
    )
    if original:
        said.append(f"What its makers say of the original is in {ORIGINAL_README}.")
    return " ".join(said)


def _figures(facts: CardFacts) -> str:
    lines = ["## Measured", "", "| graph | bytes, fp32 | bytes | speed, times fp32's |", "|---|---|---|---|"]
    for role, artifact in facts.artifacts.items():
        found = facts.benchmarks.get(role)
        speed = "not measured"
        if found is not None:
            speed = f"{found.speedup.median:.2f} ({found.speedup.low:.2f} to {found.speedup.high:.2f})"
        lines.append(f"| {role} | {artifact.baseline_bytes:,} | {artifact.size_bytes:,} | {speed} |")
    if facts.benchmarks:
        one = next(iter(facts.benchmarks.values()))
        threads = "one thread" if one.threads == 1 else f"{one.threads} threads"
        elsewhere = "On other processors it differs."
        carried = None if facts.trial is None else facts.trial.onnxruntime
        if carried is not None and not same_series(one.runtime, carried):
            elsewhere = f"On other processors, and in the ONNX Runtime {carried} of the client, it differs."
        lines += ["", f"Speed: {facts.processor}, ONNX Runtime {one.runtime}, {threads}. {elsewhere}"]
    if facts.metrics:
        lines += ["", "| quality | fp32 | this |", "|---|---|---|"]
        for name in (metric for metric in in_reading_order() if metric in facts.metrics):
            found_metric = facts.metrics[name]
            unit = f" {METRICS[name].unit}" if METRICS[name].unit else ""
            values = [_number(found_metric.get(which), unit) for which in ("baseline", "quantized")]
            lines.append(f"| {METRICS[name].title or name} | {values[0]} | {values[1]} |")
        lines += ["", f"Quality: {facts.samples} samples of {facts.data}."]
    if facts.trial is not None:
        lines += ["", facts.trial.words]
    return "\n".join(lines)


def _number(value: Any, unit: str) -> str:  # noqa: ANN401
    return "" if value is None else f"{value:.4g}{unit}"
