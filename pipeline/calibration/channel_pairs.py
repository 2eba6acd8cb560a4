"""How far neighbouring channels of a tensor go together: what bounds a sum of their products.

Of channels 0 and 1, 2 and 3, ... the largest a·x₀ + b·x₁ is kept for a few directions (a, b) with a, b >= 0: the support
function of the points (x₀, x₁) that were seen. Between two directions it is at most what these two say, since it is sublinear.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Reach = npt.NDArray[np.float32]
"""(pairs, directions): the largest a·x₀ + b·x₁ of each pair."""

ANGLES = np.linspace(0, np.pi / 2, 9)  # between two of them, the bound is at most 0.5 % too large
DIRECTIONS: npt.NDArray[np.float32] = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).round(7).astype(np.float32)
"""(directions, 2): the first is x₀ alone, the last x₁ alone."""


def reach_of(channels: npt.NDArray[Any]) -> Reach:
    """Return how far the channels of each pair go together.

    Args:
        channels: float32 (an even number of channels, values).
    """
    found = np.empty((len(channels) // 2, len(DIRECTIONS)), np.float32)
    for index, (first, second) in enumerate(DIRECTIONS):
        found[:, index] = (first * channels[0::2] + second * channels[1::2]).max(axis=1, initial=-np.inf)
    return found
