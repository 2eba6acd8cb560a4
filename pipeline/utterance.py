"""What is known of one utterance of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OnBadSample = Callable[[str, str], None]
"""(id, reason) -> None: called for a sample that cannot be used; raises DataError where it must not be skipped."""


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Attributes:
        id: unique in its set.
        text: what is said.
        tokens: the ids that the acoustic model reads.
        audio: the recording, an absolute path.
    """

    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    audio: Path | None = None
