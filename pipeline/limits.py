"""What a run may take: the settings `limits.*`, and which of them hold now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass
class LimitsConfig:
    """What a run may take: what is beyond is refused, by an error that names the limit.

    Attributes:
        model_mb: the size of a model's file with its weights, and of what an archive holds.
        nodes: the number of operators of a graph, those of bodies included, and those that calls of functions stand for: ONNX
            Runtime's optimisers take time that grows faster than it. A file of more than two million is never read.
        sample_seconds: the length of a recording.
        sample_mb: the size of the arrays of one sample.
        stage_seconds: the time that each stage may take; null: as long as it needs.
        opening_seconds: the time in which ONNX Runtime must have opened a graph, and run it once, in the process that opens
            every graph first.
        memory_mb: the memory that this process may take for it (on Linux); null: all that the machine has.
    """

    model_mb: int = 16_000
    nodes: int = 100_000
    sample_seconds: float = 1800.0
    sample_mb: int = 2000
    stage_seconds: float | None = None
    opening_seconds: float = 600.0
    memory_mb: int | None = None


_held = [LimitsConfig()]


@contextmanager
def holding(limits: LimitsConfig) -> Iterator[None]:
    """Let limits hold, for a run."""
    _held.append(limits)
    try:
        yield
    finally:
        _held.pop()


def limits() -> LimitsConfig:
    """Return the limits that hold: those of the run, or the usual ones."""
    return _held[-1]
