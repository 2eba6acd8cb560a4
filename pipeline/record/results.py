"""Facts that stages find and report.json holds as they are."""

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class TensorShape:
    """An input or output of a graph; a length that the graph leaves open is None, or a name."""

    name: str
    type: str
    shape: list[int | str | None] | None


@dataclass(frozen=True)
class Inspection:
    """What is known of one graph: the report's `inspect.<graph>`.

    Attributes:
        inputs: name, type and shape of each input; null is a size that the graph leaves open.
        outputs: the same of each output.
        processor: the target that this machine is of, and what it does with sums of integer products.
        states: output -> the input that a caller feeds it back to.
        advice_on_states: of a graph with states: the setting, and what data to give; empty where the model's kind knows.
        opset: version of the default operator set.
        nodes: how many.
        ops: operator type -> count.
        parameters: values of all constants of float type.
        macs: operator type -> multiply-accumulates of one inference on the probe.
        node_macs: node -> multiply-accumulates, of those that have any.
        time_share: operator type, as ONNX Runtime runs it -> share of the time of one inference, 0 to 1.
        probe: the sample that macs and time are of.
        advised_mode: the mode that fits.
        reasons: why.
    """

    opset: int
    nodes: int
    ops: dict[str, int]
    parameters: int
    macs: dict[str, int]
    time_share: dict[str, float]
    advised_mode: str
    reasons: list[str]
    probe: str | None = None
    inputs: list[TensorShape] = field(default_factory=list)
    outputs: list[TensorShape] = field(default_factory=list)
    node_macs: dict[str, int] = field(default_factory=dict)
    processor: str = ""
    states: dict[str, str] = field(default_factory=dict)
    advice_on_states: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ErrorOverTime:
    """How far an output of a streaming model is from fp32's, from the beginning of sequences to their end.

    Each model has the states that it has left itself. Values are signal to quantization noise in dB, of all sequences together;
    None where they are infinite, or where fp32's output is zero.

    Attributes:
        tenths: of each tenth of the steps, in their order.
        one_step: the same of single steps, both models with fp32's states.
        first: of the first tenth.
        median: of all tenths.
        last: of the last tenth.
        grows: whether the last tenth is more than 1 dB worse than the median, and not because single steps are as well: those
            are where sequences end in silence. None where it is, but the tenths before show no trend: that may be what is said
            there.
    """

    tenths: list[float | None]
    one_step: list[float | None]
    first: float | None
    median: float | None
    last: float | None
    grows: bool | None


@dataclass(frozen=True)
class RateOfLength:
    """An error rate of both models on the recordings of a range of lengths, in percent.

    Attributes:
        baseline: fp32's.
        quantized: the quantized model's.
        delta: quantized - baseline, in points.
        low: lower end of its paired 95 % interval over the recordings.
        high: upper end.
    """

    baseline: float
    quantized: float
    delta: float
    low: float
    high: float


@dataclass(frozen=True)
class LengthRange:
    """The recordings of a range of lengths, and what both models make of them.

    Attributes:
        from_s: they are longer than so many seconds; those of the first range may be as long.
        to_s: they are at most so many seconds long.
        samples: how many.
        words: in their texts.
        characters: in their texts, without spaces.
        rates: metric -> its values on them.
    """

    from_s: float
    to_s: float
    samples: int
    words: int
    characters: int
    rates: dict[str, RateOfLength]


@dataclass(frozen=True)
class ProcessorFit:
    """For which processors a quantized graph is right.

    Attributes:
        made_for: the target of its mode: `mode.target`, or this machine's kind; None: the mode knows none.
        right_on: the targets that compute its sums of integer products exactly.
        saturates_on: those on which some would saturate.
        exact_in_range: nodes whose sums are exact there for activations as calibration has seen them, and 10 % beyond, but not
            for all that uint8 can hold.
        saturating_sums: node -> the share of its sums of two products that would saturate there, 0 to 1, on calibration data;
            null: it was not counted.
        weight_bits: node -> bits that its int8 weights use: 7 or 8.
    """

    made_for: str | None
    right_on: list[str]
    saturates_on: list[str] = field(default_factory=list)
    saturating_sums: dict[str, float | None] = field(default_factory=dict)
    weight_bits: dict[str, int] = field(default_factory=dict)
    exact_in_range: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """A node that stays in fp32.

    Attributes:
        node: its name.
        reason: why it was not quantized.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class Applied:
    """A rewrite that was kept.

    Attributes:
        name: of the rewrite.
        sites: how many places it changed.
        speedup: against the graph before it: the median of the paired ratios; of all that were timed together.
        max_difference: of any output from the original's, relative to the scale of that output, with all rewrites so far.
        together: the names of all that were timed together, where it was not alone.
        exactness: "bitwise", "algebraic" or "assumed": of its weakest place (`rewrite_registry.Exactness`).
        assumption: where it is assumed: what of the inputs, in a sentence.
        assumed_sites: how many of the places rest on that.
        withheld_sites: further places, which `mode.assume=true` would change.
    """

    name: str
    sites: int
    speedup: float | None
    max_difference: float | None
    together: list[str] = field(default_factory=list)
    exactness: str = ""
    assumption: str = ""
    assumed_sites: int = 0
    withheld_sites: int = 0


@dataclass(frozen=True)
class MeasuredLoss:
    """A loss with its 95 % interval over samples.

    Attributes:
        metric: what it is measured in.
        value: how much worse than fp32; below zero is better.
        low: lower end of the interval; None where the samples do not tell.
        high: upper end.
        samples: how many it was measured on.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    samples: int


class Outcome(StrEnum):
    """What follows for quality from a limit."""

    within = "within the limit"
    beyond = "beyond the limit"
    undecided = "not decided"
    unmeasured = "not measured"


@dataclass(frozen=True)
class LimitCheck:
    """One limit of quality beside what was measured.

    Attributes:
        metric: what the loss is measured in; `length_change` is the longest or shortest output relative to fp32's.
        unit: of the metric.
        limit: how much worse than fp32 the model may be in it.
        asked: whether the user gave the limit; else it is the usual one of the metric.
        outcome: where the loss lies; `not decided` where its 95 % interval holds the limit.
        loss: how much worse than fp32 the model is; None: infinitely, or not measured.
        low: lower end of the interval; None where it is not known.
        high: upper end.
        decides: whether the verdict waits for it; else it can only break the verdict, by an interval beyond the limit.
        why: why it was not measured.
    """

    metric: str
    unit: str
    limit: float
    asked: bool
    outcome: str
    loss: float | None = None
    low: float | None = None
    high: float | None = None
    decides: bool = True
    why: str | None = None


@dataclass(frozen=True)
class NodeError:
    """One node whose output exists in both graphs.

    Attributes:
        node: its name in the original.
        op_type: its operator.
        sqnr_db: power of fp32's output over power of the difference, all samples together; infinite where there is none,
            minus infinite where the quantized graph has NaN or infinity in fp32's place of a number.
    """

    node: str
    op_type: str
    sqnr_db: float | None


@dataclass(frozen=True)
class ReconstructedPart:
    """A part of a graph whose numbers were learned (`mode.reconstruct`).

    Attributes:
        name: the tensor that it makes, or `the whole`.
        layers: how many layers with integer weights it has.
        measure: of the errors: `squared error`, over the power of what is right, or `log_mel_l1`, in nats.
        steps: of the optimiser.
        calibration_before: error on the calibration samples that it learned from.
        calibration_after: the same, with what was kept.
        held_back_before: error on calibration samples that it did not learn from.
        held_back_after: the same, with what was kept.
        kept: whether what was learned is in the file; it is not where the error on what was held back did not become smaller.
        in_time: whether there was time for all steps.
    """

    name: str
    layers: int
    measure: str
    steps: int
    calibration_before: float
    calibration_after: float
    held_back_before: float
    held_back_after: float
    kept: bool
    in_time: bool


@dataclass(frozen=True)
class Reconstruction:
    """What `mode.reconstruct` has done to a graph.

    Attributes:
        parts: in the order in which they were learned.
        left: what was not reconstructed -> why.
        seconds: that it took.
        stopped_early: whether `mode.reconstruct_seconds` ended it.
    """

    parts: list[ReconstructedPart]
    left: dict[str, str]
    seconds: float
    stopped_early: bool
