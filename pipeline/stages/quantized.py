"""What the quantize stage gives."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.record.results import Reconstruction

if TYPE_CHECKING:  # a run that quantizes nothing loads no rewrites
    from pipeline.optimize.engine import Rewritten
    from pipeline.quantize.artifact import Artifact


@dataclass(frozen=True)
class Quantized:
    """What the stage gives.

    Attributes:
        artifacts: graph name -> artifact.
        notes: what was changed on the way, as is usual, and may explain the result.
        urgent: what a user must know before all else.
        rewritten: graph name -> the float rewrites that were kept and refused, where they were asked for.
        searches: graph name -> what a search has tried and found: the report's `search`.
        warnings: what else a user must know.
        reconstructions: graph name -> what was learned of it (`mode.reconstruct`).
        calibrated_on: what was calibrated on, such as `32 real samples`; None where nothing was.
    """

    artifacts: dict[str, "Artifact"]
    notes: tuple[str, ...]
    rewritten: dict[str, "Rewritten"]
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    calibrated_on: str | None = None
    urgent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reconstructions: dict[str, Reconstruction] = field(default_factory=dict)
