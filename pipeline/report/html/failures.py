"""Runs without numbers, as a page shows them folded away: those that failed for the same reason together, each reason short."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.html.language import tr
from pipeline.report.ranking import FailedRun

SHORT = 160  # characters of a reason that are shown; the rest is folded away


@dataclass(frozen=True)
class FailedLink:
    """A failed run: its name, and the place of its page, where it has one."""

    label: str
    link: str | None


@dataclass(frozen=True)
class FailedGroup:
    """Runs that failed for one reason: it is shown short, and whole where that leaves something out."""

    runs: list[FailedLink]
    status: str
    short: str
    rest: str


def failed_groups(failed: Sequence[FailedRun], links: Mapping[str, str | None]) -> list[FailedGroup]:
    """Return failed runs by their reasons.

    Args:
        failed: the runs.
        links: directory of a run -> the place of its page.
    """
    by_reason: dict[tuple[str, str], list[FailedLink]] = {}
    for run in failed:
        by_reason.setdefault((run.status, run.error), []).append(FailedLink(run.label, links.get(run.directory)))
    groups = []
    for (status, reason), runs in by_reason.items():
        short = shortened(reason)
        groups.append(FailedGroup(runs, status, tr(short), "" if short == reason.strip() else reason.strip()))
    return groups


def shortened(reason: str) -> str:
    """Return the first sentence of a reason, cut where it is long."""
    line = reason.strip().partition("\n")[0]
    if len(line) > SHORT:
        first = line.partition(". ")[0]
        line = f"{first}." if len(first) < SHORT else f"{line[:SHORT].rsplit(' ', 1)[0]} …"
    return line
