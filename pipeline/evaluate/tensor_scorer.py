"""`evaluation=tensors`: the outputs themselves, and the accuracy of a classifier whose labels are given."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.sample import Outputs


class TensorScorer:
    """Counts right classes; the tensor metrics are computed for every kind of evaluation."""

    def __init__(self, labels: npt.NDArray[np.integer] | None) -> None:
        """Take the classes, one per sample in the order of the samples, or None."""
        self._labels = labels
        self._scored = 0
        self._right = [0, 0]

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Compare the best class of the first output with the label."""
        del item
        if self._labels is None:
            return SampleScores()
        label = int(self._labels[self._scored])
        classes = [int(np.argmax(next(iter(outputs.values())))) for outputs in (baseline, quantized)]
        self._scored += 1
        self._right = [right + (found == label) for right, found in zip(self._right, classes, strict=True)]
        return SampleScores(notes={"label": label, "baseline_class": classes[0], "quantized_class": classes[1]})

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the accuracy."""
        if not self._scored:
            return {}
        baseline, quantized = (100.0 * right / self._scored for right in self._right)
        return {"accuracy_percent": (baseline, quantized)}


def read_labels(path: Path, samples: int) -> npt.NDArray[np.integer]:
    """Read an .npy of one class per sample.

    Raises:
        DataError: the file is missing, no .npy of integers, or holds fewer classes than there are samples.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"evaluation.labels: {path} is no .npy that numpy reads ({error}).") from error
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"evaluation.labels: {path} must hold one integer class per sample.")
    if len(labels) < samples:
        raise DataError(f"evaluation.labels: {path} holds {len(labels)} classes, but there are {samples} samples.")
    return labels
