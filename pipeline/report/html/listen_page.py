"""The page to compare two versions of samples by ear, blind: A, B, and X, which is one of the two. It is served, not saved."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluate.changed_audio import BASELINE, RECORDING
from pipeline.report.html.language import tr
from pipeline.report.html.render import render

ROUNDS = (10, 16, 20)  # of a series; ten right of ten are guessed once in a thousand series


@dataclass(frozen=True)
class HeardVersion:
    """A version of a run's samples that can be chosen: its id in addresses, the run's directory, and its kind."""

    id: str
    run: str
    kind: str

    @property
    def caption(self) -> str:
        """What it is called on the page."""
        if self.kind in (BASELINE, RECORDING):
            return tr(self.kind)
        return f"{tr('quantized')} ({self.kind})"


@dataclass(frozen=True)
class PastSeries:
    """A series of answers that was kept: when, how many were right of how many, and the probability of that by guessing."""

    when: str
    right: int
    rounds: int
    guessed: float


@dataclass(frozen=True)
class Comparison:
    """What a listener compares.

    Attributes:
        first, second: the two versions.
        samples: (name, address of the first version's audio, of the second's).
        past: series of these two versions, the oldest first.
        not_kept: why no score can be kept beside the runs; empty where it can.
    """

    first: HeardVersion
    second: HeardVersion
    samples: Sequence[tuple[str, str, str]]
    past: Sequence[PastSeries]
    not_kept: str = ""


def listen_page(versions: Sequence[HeardVersion], comparison: Comparison | None, notice: str, rounds: int, post_to: str) -> str:
    """Return the text of the page.

    Args:
        versions: that can be chosen, those of one run side by side.
        comparison: of the two that are chosen; None: there are no two.
        notice: why there is nothing to compare.
        rounds: of a series.
        post_to: the address that takes a score.
    """
    runs: dict[str, list[HeardVersion]] = {}
    for version in versions:
        runs.setdefault(version.run, []).append(version)
    view = {
        "title": tr("Compare by ear"),
        "runs": runs,
        "comparison": comparison,
        "notice": notice,
        "rounds": rounds,
        "all_rounds": ROUNDS,
        "post_to": post_to,
        "pair": None if comparison is None else [comparison.first.id, comparison.second.id],
    }
    return render("listen.html.j2", view, "listen.js")
