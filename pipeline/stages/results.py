"""What the stages give, where it is not the type of another package."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.optimize.engine import Rewritten
from pipeline.quantize.artifact import Artifact


@dataclass(frozen=True)
class Inspection:
    """What is known of one graph: the report's `inspect.<graph>`.

    Attributes:
        inputs: name, type and shape of each input; null is a size that the graph leaves open.
        outputs: the same of each output.
        opset: version of the default operator set.
        nodes: how many.
        ops: operator type -> count.
        parameters: values of all constants of float type.
        macs: operator type -> multiply-accumulates of one inference on the probe.
        time_share: operator type, as ONNX Runtime runs it -> share of the time of one inference, 0 to 1.
        probe: the sample that macs and time are of.
        advised_mode: the mode that fits.
        reasons: why.
    """

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    opset: int
    nodes: int
    ops: dict[str, int]
    parameters: int
    macs: dict[str, int]
    time_share: dict[str, float]
    probe: str
    advised_mode: str
    reasons: list[str]


@dataclass(frozen=True)
class Quantized:
    """What the stage gives.

    Attributes:
        artifacts: graph name -> artifact.
        notes: what was changed on the way that a user should know.
        rewritten: graph name -> the float rewrites that were kept and refused, where they were asked for.
        searches: graph name -> what a search has tried and found: the report's `search`.
        urgent: what a user should know before all else, such as a budget that nothing meets.
        calibrated_on: what was calibrated on, such as `32 real samples`; None where nothing was.
    """

    artifacts: dict[str, Artifact]
    notes: tuple[str, ...]
    rewritten: dict[str, Rewritten]
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    urgent: tuple[str, ...] = ()
    calibrated_on: str | None = None
