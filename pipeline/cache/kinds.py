"""What is kept, and which version of our own code makes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What is kept.

    Attributes:
        name: of its folder, and in the report's `cache`.
        version: to be raised with every change that changes what is made.
        of_code: so much of our code takes part that an entry depends on every file of it; else on `version` alone.
        in_memory: also kept in memory, for the next job of a sweep.
        cheap: made so fast that it is kept on the disk only where reading it is faster.
    """

    name: str
    version: int = 1
    of_code: bool = True
    in_memory: bool = False
    cheap: bool = False


STATISTICS = Kind("statistics", 6, of_code=False)
INFINITE = Kind("infinite_tensors")
SAMPLES = Kind("samples", in_memory=True, cheap=True)
CHECKED = Kind("checked_samples")
OUTPUTS = Kind("outputs", in_memory=True, cheap=True)
INSPECTIONS = Kind("inspections")
PREPARED = Kind("prepared_graphs")
GRAPH_REWRITES = Kind("rewrites")
SENSITIVITIES = Kind("sensitivities")
ARTIFACTS = Kind("artifacts")
EVALUATIONS = Kind("evaluations")
MEMORY = Kind("memory", of_code=False)
PROFILES = Kind("profiles")
TIMINGS = Kind("timings")

KINDS = (
    STATISTICS, INFINITE, SAMPLES, CHECKED, OUTPUTS, INSPECTIONS, PREPARED, GRAPH_REWRITES, SENSITIVITIES, ARTIFACTS,
    EVALUATIONS, MEMORY, PROFILES, TIMINGS,
)  # fmt: skip
