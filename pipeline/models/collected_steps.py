"""The outputs of a streaming model's steps, as one array each."""

from collections.abc import Collection

import numpy as np

from pipeline.sample import Array, Outputs

KEPT_STATES = 64  # of a sequence, of the states that are compared: all of them would not fit into memory


class Collected:
    """The outputs of a sequence's steps: each stacked, steps first; of the states, those of 64 steps at most, evenly spread.

    Where the shape of an output changes from step to step, its values are put one behind the other.
    """

    def __init__(self, states: Collection[str], steps: int) -> None:
        """Start without outputs."""
        self._states, self._number = states, 0
        self._kept = {int(step) for step in np.linspace(0, steps - 1, min(steps, KEPT_STATES)).round()}
        self._parts: dict[str, list[Array]] = {}

    def add(self, outputs: Outputs) -> None:
        """Take the outputs of the next step."""
        for name, array in outputs.items():
            if name not in self._states or self._number in self._kept:
                self._parts.setdefault(name, []).append(array)
        self._number += 1

    def outputs(self) -> Outputs:
        """Return all outputs of the sequence."""
        found = {}
        for name, parts in self._parts.items():
            same = all(part.shape == parts[0].shape for part in parts)
            found[name] = np.stack(parts) if same else np.concatenate([part.reshape(-1) for part in parts])
        return found
