"""One sample: the arrays that one call of a graph takes, by input name."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """The inputs of one inference.

    Attributes:
        id: a name that is unique in its set, shown in errors and in the report.
        inputs: input name -> array, of the dtype and rank that the graph declares.
    """

    id: str
    inputs: dict[str, npt.NDArray[np.generic]]

    @property
    def size(self) -> int:
        """The number of values in all inputs."""
        return sum(array.size for array in self.inputs.values())


Array = npt.NDArray[np.generic]


Outputs = dict[str, Array]
"""Output name -> array, of one inference."""
