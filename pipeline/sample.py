"""One sample: the arrays that one call of a graph takes, by input name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
"""An array of any type: what graphs read and write."""

FloatArray = npt.NDArray[np.float64]
"""An array in double precision: what is computed about them."""

Float32Array = npt.NDArray[np.float32]
"""An array in single precision: weights, activations, scales."""

Outputs = dict[str, Array]
"""Output name -> array, of one inference."""


@dataclass(frozen=True)
class Sample:
    """The inputs of one inference.

    Attributes:
        id: a name that is unique in its set, shown in errors and in the report.
        inputs: input name -> array, of the dtype and rank that the graph declares.
        step: which of the inferences of a loop it is, from 0, where a graph is given what it gave before; None: it is in none.
    """

    id: str
    inputs: dict[str, Array]
    step: int | None = None

    @property
    def stands_for_others(self) -> bool:
        """Whether it is kept as an example of what a graph is given: of a loop, steps 0, 1, 2, 4, 8, ...

        So the first steps and late ones are among them, wherever a loop ends, and memory does not grow with its length.
        """
        return self.step is None or self.step & (self.step - 1) == 0

    @property
    def size(self) -> int:
        """The number of values in all inputs."""
        return sum(array.size for array in self.inputs.values())

    @property
    def digest(self) -> bytes:
        """A hash of the inputs: their names, types, shapes and values."""
        found = hashlib.blake2b(digest_size=16)
        for name, array in sorted(self.inputs.items()):
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes())
        return found.digest()


def digests_of(samples: Iterable[Sample]) -> list[tuple[str, bytes]]:
    """Return what results depend on of samples: their ids, and hashes of their inputs."""
    return [(sample.id, sample.digest) for sample in samples]


def samples_of(count: object, kind: object) -> str:
    """Return a number of samples of a kind of calibration in words, such as `32 real samples` or `1 sample of arrays`."""
    noun = "sample" if count == 1 else "samples"
    match kind:
        case "arrays" | "sentences":
            return f"{count} {noun} of {kind}"
        case "manifest":
            return f"{count} {noun} of a manifest"
        case _:
            return f"{count} {kind} {noun}"
