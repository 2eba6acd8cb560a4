"""The part of report.json about quality: `evaluation`."""

from dataclasses import dataclass, field

from pipeline.record.results import ErrorOverTime, LengthRange, LimitCheck, MeasuredLoss, NodeError
from pipeline.typed_json import LEFT_OUT


@dataclass(frozen=True)
class Bounds:
    """A 95 % interval over samples.

    Attributes:
        low: lower end.
        high: upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class MetricResult:
    """A metric of both models.

    Attributes:
        baseline: fp32's value; None: infinite.
        quantized: the quantized model's; None: infinite.
        delta: quantized - baseline.
        unit: of the values.
        higher_is_better: the direction of a gain.
        version: of the metric: values of other versions cannot be compared.
        samples: how many samples have it; None: all.
        interval: of the quantized model's value, over samples; None where it is not known.
        delta_interval: of the paired difference from fp32's value, of a metric against the truth.
        output: the output that the value is of, where there are several: the worst one.
    """

    baseline: float | None
    quantized: float | None
    delta: float | None
    unit: str
    higher_is_better: bool
    version: int | None = None
    samples: int | None = None
    interval: Bounds | None = None
    delta_interval: Bounds | None = None
    output: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class TruthPair:
    """A metric against the truth, of one sample."""

    baseline: float | None
    quantized: float | None


@dataclass(frozen=True)
class SampleResult:
    """One sample: its scores, and what both models made of it, as far as the kind of evaluation has it.

    Attributes:
        id: of the sample.
        fidelity: metric against fp32 -> value; None: infinite.
        truth: metric against the truth -> fp32's and the quantized model's value.
        text: what was said.
        baseline_transcript: what fp32 recognised.
        quantized_transcript: what the quantized model recognised.
        first_difference: number of the first token that is not fp32's, from 1; None where all are, or tokens are not compared.
        baseline_frames: length of fp32's mel.
        quantized_frames: length of the quantized model's mel.
        label: the right class.
        baseline_class: fp32's class.
        quantized_class: the quantized model's class.
        seconds: length of the recording that was recognised.
    """

    id: str
    fidelity: dict[str, float | None] = field(default_factory=dict)
    truth: dict[str, TruthPair] = field(default_factory=dict)
    text: str | None = field(default=None, metadata=LEFT_OUT)
    baseline_transcript: str | None = field(default=None, metadata=LEFT_OUT)
    quantized_transcript: str | None = field(default=None, metadata=LEFT_OUT)
    first_difference: int | None = field(default=None, metadata=LEFT_OUT)
    baseline_frames: int | None = field(default=None, metadata=LEFT_OUT)
    quantized_frames: int | None = field(default=None, metadata=LEFT_OUT)
    label: int | None = field(default=None, metadata=LEFT_OUT)
    baseline_class: int | None = field(default=None, metadata=LEFT_OUT)
    quantized_class: int | None = field(default=None, metadata=LEFT_OUT)
    seconds: float | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class WorstSamples:
    """The samples that quantization changed most.

    Attributes:
        metric: the one that tells most of single samples.
        samples: their ids, worst first.
    """

    metric: str
    samples: list[str]


@dataclass(frozen=True)
class EvaluationReport:
    """Both models on the same samples.

    Attributes:
        samples: how many were scored.
        metrics: name -> values of both models.
        outputs: name of an output -> tensor metrics of it, means over samples.
        per_sample: the scores of each sample.
        silence: what a recogniser wrote on clips of silence and noise; empty where it was given none.
        worst: the samples that quantization changed most.
        noise: how both models came to see the same noise; None where the graph draws none.
        states: output name -> the input that it is fed back to.
        rolled_out: how many samples got the states that the sample before had left, in both models their own.
        one_call: output name -> its tensor metrics where both models get fp32's states at each call.
        steps: of all samples together, where they are sequences that a streaming model is run over step by step.
        over_time: output name -> its error over the steps.
        by_length: of a recogniser, its error rates by the length of the recordings, the shortest first; empty where there are
            too few, or all are of one length.
        length_change: of the longest or shortest output relative to fp32's, at worst: 0.02 is 2 %.
        losses: metric -> how much worse than fp32, of the metrics that have a limit.
        limits: each limit of quality, and where the loss lies: what the verdict on quality is made of.
        node_errors: graph -> the error of each of its nodes, in their order.
    """

    samples: int
    metrics: dict[str, MetricResult]
    outputs: dict[str, dict[str, float | None]] = field(default_factory=dict)
    per_sample: list[SampleResult] = field(default_factory=list)
    silence: list[SampleResult] = field(default_factory=list)
    worst: WorstSamples | None = None
    noise: str | None = None
    states: dict[str, str] = field(default_factory=dict)
    rolled_out: int = 0
    one_call: dict[str, dict[str, float | None]] = field(default_factory=dict)
    steps: int = 0
    over_time: dict[str, ErrorOverTime] = field(default_factory=dict)
    by_length: list[LengthRange] = field(default_factory=list)
    length_change: float | None = None
    losses: dict[str, MeasuredLoss] = field(default_factory=dict)
    limits: list[LimitCheck] = field(default_factory=list)
    node_errors: dict[str, list[NodeError]] = field(default_factory=dict)
