"""Does a changed graph still compute the same? Every output on real inputs, relative to the scale of that output.

This is a test on a few samples, not a proof: what a rewrite may assume of all inputs is decided before (`outcome.py`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.session import infer, open_session
from pipeline.sample import Outputs, Sample

LIMIT = 1e-4  # of an output's largest magnitude
SEED = 0


class Reference:
    """The outputs of a model on real inputs, and how far those of another are from them.

    Random operators get the same noise in both models (pipeline.graph.noise_inputs).

    Args:
        model: the original.
        probe: real inputs.
        threads: intra-op threads.
    """

    def __init__(self, model: onnx.ModelProto, probe: Sequence[Sample], threads: int = 1) -> None:
        self._model, self._probe, self._threads = model, list(probe), threads
        self._outputs = self._run(model, self._probe)
        self._noise: float | None = None

    def difference(self, model: onnx.ModelProto) -> float:
        """Return the largest difference of any output, relative to its scale; infinite where a shape differs."""
        outputs = self._run(model, self._probe)
        return max((_difference(*pair) for pair in zip(self._outputs, outputs, strict=True)), default=0.0)

    def limit(self, difference: float) -> float:
        """Return the largest difference that still counts as rounding, for a difference that was found.

        1e-4; but in a deep model, rounding of float32 may add up to more (HiFi-GAN V2 is on some mels 1.7e-4 away from itself
        in double precision). Where 1e-4 is exceeded, the original is run on inputs moved
        by one unit in the last place, which is the same input for any purpose: three times the difference counts as rounding.
        """
        if difference <= LIMIT or not np.isfinite(difference):
            return LIMIT
        if self._noise is None:
            moved = [Sample(sample.id, _moved(sample)) for sample in self._probe]
            pairs = zip(self._outputs, self._run(self._model, moved), strict=True)
            self._noise = max(_difference(*pair) for pair in pairs)
        return max(LIMIT, 3.0 * self._noise) if np.isfinite(self._noise) else LIMIT

    def _run(self, model: onnx.ModelProto, samples: Sequence[Sample]) -> list[Outputs]:
        noisy = with_noise_inputs(model)
        session = open_session(noisy.model, self._threads)
        noise = noisy.noise(np.random.default_rng(SEED))
        return [infer(session, Sample(sample.id, {**sample.inputs, **noise})) for sample in samples]


def _difference(before: Outputs, after: Outputs) -> float:
    if before.keys() != after.keys():  # a sequence of another length
        return float("inf")
    return max((_of_one(before[name], after[name]) for name in before), default=0.0)


def _of_one(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]) -> float:
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if before.size == 0 or np.array_equal(before, after):
        return 0.0
    if before.dtype.kind == "O":  # texts that differ
        return float("inf")
    first, second = before.astype(np.float64), after.astype(np.float64)
    if not (np.isfinite(first) == np.isfinite(second)).all():
        return float("inf")
    gap = np.abs(np.nan_to_num(first) - np.nan_to_num(second)).max()
    scale = np.abs(np.nan_to_num(first)).max()
    return float(gap / scale) if scale > 0 else float("inf")


def _moved(sample: Sample) -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(SEED)
    return {
        name: np.nextafter(array, np.where(rng.random(array.shape) < 0.5, np.inf, -np.inf).astype(array.dtype))
        if array.dtype == np.float32
        else array
        for name, array in sample.inputs.items()
    }
