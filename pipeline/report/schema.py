"""report.json, schema 2: a contract, since tools outside of this project read it.

Each class is an object of the file, each attribute a key of it. A float that may be None is null in the file where it is
infinite or not a number, which JSON cannot say. Attributes with LEFT_OUT are absent from the file while they are None; all
others are written. `benchmark_schema.py`, `evaluation_schema.py` and `search_schema.py` hold the parts of these names, and
`report_file.py` reads and writes.

Schema 2 differs from schema 1 in `artifacts.quantized_nodes`, which was a list of names beside `precisions` with the same
names as keys, and is {name: precision} now (the file still has `precisions`, with the same content); and in `verdict`,
`samples`, `runs_on`, `search.<graph>.{selection_loss, report_loss}` and the status `interrupted`, which are new.
"""

from dataclasses import dataclass, field

from pipeline.cache.current_cache import Use
from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.record.diagnosis import Diagnosis
from pipeline.record.packaged import Package
from pipeline.record.results import Applied, Inspection, Kept, ProcessorFit, Reconstruction
from pipeline.report.evaluation_schema import EvaluationReport
from pipeline.report.search_schema import SearchReport
from pipeline.typed_json import LEFT_OUT

SCHEMA = 2

Environment = dict[str, str | int | list[str] | None]


@dataclass(frozen=True)
class StageRun:
    """A stage of the run.

    Attributes:
        name: of the stage.
        status: `done`, `pending` or the status of the run.
        seconds: how long it took; None: it has not ended.
    """

    name: str
    status: str
    seconds: float | None


@dataclass(frozen=True)
class InputFile:
    """A file that the run has read.

    Attributes:
        path: relative to the project where it is part of it.
        sha256: of its contents.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class SkippedSample:
    """A sample that the run went on without.

    Attributes:
        set: the setting that names its data set.
        sample: its id.
        reason: why it could not be used.
    """

    set: str
    sample: str
    reason: str


@dataclass(frozen=True)
class ArtifactReport:
    """A quantized graph.

    Attributes:
        graph: its role.
        file: its name in the run's directory.
        sha256: of the file and its external data.
        bytes: of the file and its external data.
        baseline_bytes: of the original.
        quantized_nodes: node name -> how it computes now.
        kept: nodes that could have been quantized and were not.
        kernels: how ONNX Runtime ran it: operator type -> count of integer operators and of Q/DQ nodes that it could not fuse.
        modules: node name -> the module of the source that it was exported from, where its name does not say so.
        weights: type, such as int8 -> its share of the values of all weights, 0 to 1.
        multiplications: how nodes compute now -> their share of the multiplications of one inference, 0 to 1; fp32 is the rest.
            None where the graph was not inspected, or where rewrites gave nodes other names.
        runtime: the oldest ONNX Runtime that it runs in, such as ">= 1.17".
        runtime_because: what in it needs that version.
        processors: for which processors it is right, and the bits of its weights.
    """

    graph: str
    file: str
    sha256: str
    bytes: int
    baseline_bytes: int
    quantized_nodes: dict[str, str]
    kept: list[Kept] = field(default_factory=list)
    kernels: dict[str, int] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    multiplications: dict[str, float] | None = None
    runtime: str = ""
    runtime_because: str = ""
    processors: ProcessorFit | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class RejectedRewrite:
    """A rewrite that was not kept.

    Attributes:
        name: of the rewrite.
        reason: why it was refused.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class GraphRewrites:
    """What became of each rewrite of a graph."""

    applied: list[Applied]
    rejected: list[RejectedRewrite]


@dataclass(frozen=True)
class SampleSplit:
    """Ids of evaluation samples: those that a search chose by, and those that the report's numbers are of."""

    selection: list[str]
    report: list[str]


@dataclass(frozen=True)
class RunVerdict:
    """What the run has come to, each in one sentence; None: nothing is known.

    Attributes:
        speed: begins with `faster`, `slower`, `as fast`, `not decided` or `not measured`; of several graphs, the slowest first.
        quality: begins with `within the limit`, `beyond the limit`, `not decided` or `not measured`; the numbers are in
            `evaluation.limits`.
        size: of all artifacts together.
        integers: which share of the weights' bytes and of the multiplications became integers, of all artifacts together.
    """

    speed: str | None
    quality: str | None
    size: str | None
    integers: str | None = None


@dataclass(frozen=True)
class Suggestion:
    """What to try next.

    Attributes:
        command: ready to paste into a shell.
        reason: why it may improve the run.
    """

    command: str
    reason: str


@dataclass(frozen=True)
class RunsOn:
    """What the artifacts of a run need together.

    Attributes:
        onnxruntime: the oldest version of ONNX Runtime that runs all of them, such as ">= 1.17".
        processors: the targets that compute all of them exactly (`pipeline/quantize/target.py`).
    """

    onnxruntime: str
    processors: list[str]


@dataclass(frozen=True)
class RerunDifferences:
    """What differs from the run that was repeated.

    Attributes:
        of: its directory.
        inputs_changed: files that are others, or are read in one of both runs only.
        environment_changed: versions and machine.
        artifacts_identical: file -> whether it is the same, bit by bit.
        metrics_moved: metric -> the quantized model's value then and now.
    """

    of: str
    inputs_changed: list[str]
    environment_changed: list[str]
    artifacts_identical: dict[str, bool]
    metrics_moved: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Report:
    """A run, as far as it has come.

    Attributes:
        status: running, done, failed or interrupted.
        error: the message of a run that failed.
        model: its name; None where the run ended before its settings were known.
        mode: likewise.
        verdict: in words.
        stages: in their order.
        inputs: every file that the run has read.
        environment: name -> version, or what is known of the processor.
        warnings: what a user must see.
        notes: routine steps that may explain a result, such as the conversion to a newer opset.
        skipped: samples that the run went on without.
        inspect: graph -> what it is made of.
        doctor: what was found of the model, where that was asked for.
        artifacts: the quantized graphs.
        runs_on: what they need.
        calibrated_on: how many samples of which kind.
        rewrites: graph -> what became of each rewrite, where they were asked for.
        reconstruction: graph -> what was learned of its parts, where that was asked for.
        search: graph -> what a search has tried and chosen.
        samples: which samples a search chose by, and which it did not see.
        benchmark: graph -> its speed.
        evaluation: quality.
        package: the directory that goes to a device, where that was asked for.
        cache: kind of intermediate result -> how many were found in the cache, and how many were made and may be found there by
            later runs; None: the cache was off.
        rerun: what differs from the run that was repeated.
        try_next: what most likely improves it: at most two commands.
    """

    status: str
    error: str | None = field(default=None, metadata=LEFT_OUT)
    model: str | None = field(default=None, metadata=LEFT_OUT)
    mode: str | None = field(default=None, metadata=LEFT_OUT)
    verdict: RunVerdict | None = field(default=None, metadata=LEFT_OUT)
    stages: list[StageRun] = field(default_factory=list)
    inputs: list[InputFile] = field(default_factory=list)
    environment: Environment = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[SkippedSample] = field(default_factory=list)
    inspect: dict[str, Inspection] | None = field(default=None, metadata=LEFT_OUT)
    doctor: Diagnosis | None = field(default=None, metadata=LEFT_OUT)
    artifacts: list[ArtifactReport] | None = field(default=None, metadata=LEFT_OUT)
    runs_on: RunsOn | None = field(default=None, metadata=LEFT_OUT)
    calibrated_on: str | None = field(default=None, metadata=LEFT_OUT)
    rewrites: dict[str, GraphRewrites] | None = field(default=None, metadata=LEFT_OUT)
    reconstruction: dict[str, Reconstruction] | None = field(default=None, metadata=LEFT_OUT)
    search: dict[str, SearchReport] | None = field(default=None, metadata=LEFT_OUT)
    samples: SampleSplit | None = field(default=None, metadata=LEFT_OUT)
    benchmark: dict[str, GraphBenchmark] | None = field(default=None, metadata=LEFT_OUT)
    evaluation: EvaluationReport | None = field(default=None, metadata=LEFT_OUT)
    package: Package | None = field(default=None, metadata=LEFT_OUT)
    cache: dict[str, Use] | None = field(default=None, metadata=LEFT_OUT)
    rerun: RerunDifferences | None = field(default=None, metadata=LEFT_OUT)
    try_next: list[Suggestion] = field(default_factory=list)
