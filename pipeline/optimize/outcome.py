"""What a rewrite rule returns: the places that it changed, or why it changed none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sites:
    """Places that a rule changed.

    Attributes:
        count: all of them.
        assumed: those of them that rest on what the rule assumes of the inputs.
        withheld: further places that `mode.assume=true` would change.
    """

    count: int
    assumed: int = 0
    withheld: int = 0


@dataclass(frozen=True)
class Refusal:
    """A graph that a rule left as it is.

    Attributes:
        reason: why.
        withheld: places that `mode.assume=true` would change.
    """

    reason: str
    withheld: int = 0


Outcome = Sites | Refusal


def outcome(count: int, reason: str, *, assumed: int = 0, withheld: int = 0) -> Outcome:
    """Return the places, or where there are none, the reason."""
    return Sites(count, assumed, withheld) if count else Refusal(reason, withheld)
