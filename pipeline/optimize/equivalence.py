"""Does a changed graph still compute the same? Every output on real inputs, relative to the scale of that output.

This is a test on a few samples, not a proof: what a rewrite may assume of all inputs is decided before (`outcome.py`). One
thing is looked for that real samples seldom have: NaN where rows are masked throughout (`masked_rows.py`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import ORT_ERRORS, RunError, infer, open_session
from pipeline.optimize.masked_rows import masks_with_infinity, tensors_of, with_all_masked
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
        self._masks = masks_with_infinity(model)
        self._masked: dict[frozenset[str], Outputs | None] = {}  # by the masks that were set

    def difference(self, model: onnx.ModelProto) -> float:
        """Return the largest difference of any output, relative to its scale.

        Infinite where a shape differs, and where the model alone gives no number once all is masked.

        Raises:
            EndedError: ONNX Runtime ends the process that opens or runs the model.
        """
        outputs = self._run(model, self._probe)
        found = max((_difference(*pair) for pair in zip(self._outputs, outputs, strict=True)), default=0.0)
        return found if np.isfinite(found) and not self._breaks_masked_rows(model) else float("inf")

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

    def _breaks_masked_rows(self, model: onnx.ModelProto) -> bool:
        """Return whether a model gives NaN where the original gives numbers, if nothing is left by the masks of both."""
        masks = {name: value for name, value in self._masks.items() if name in tensors_of(model)}
        if not masks:
            return False
        shortest = [min(self._probe, key=lambda sample: sample.size)]
        key = frozenset(masks)
        if key not in self._masked:
            try:
                [self._masked[key]] = self._run(with_all_masked(self._model, masks), shortest)
            except (RunError, EndedError, *ORT_ERRORS):  # lengths that follow from a mask may leave nothing to compute
                self._masked[key] = None
        if (before := self._masked[key]) is None:
            return False
        try:
            [after] = self._run(with_all_masked(model, masks), shortest)
        except (RunError, EndedError, *ORT_ERRORS):
            return True
        return any(
            (np.isfinite(array) & ~_finite_as(array, after[name])).any() for name, array in before.items() if _real(array)
        )

    def _run(self, model: onnx.ModelProto, samples: Sequence[Sample]) -> list[Outputs]:
        noisy = with_noise_inputs(model)
        noise = noisy.noise(np.random.default_rng(SEED))
        given = [Sample(sample.id, {**sample.inputs, **noise}) for sample in samples]
        session = open_session(noisy.model, self._threads, sample=given[0] if given else None)
        return [infer(session, sample) for sample in given]


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


def _real(array: npt.NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f"


def _finite_as(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return where an output is finite; nowhere if its shape is another one."""
    finite: npt.NDArray[np.bool_] = np.isfinite(after) if after.shape == before.shape else np.zeros(before.shape, bool)
    return finite


def _moved(sample: Sample) -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(SEED)
    return {
        name: np.nextafter(array, np.where(rng.random(array.shape) < 0.5, np.inf, -np.inf).astype(array.dtype))
        if array.dtype == np.float32
        else array
        for name, array in sample.inputs.items()
    }
