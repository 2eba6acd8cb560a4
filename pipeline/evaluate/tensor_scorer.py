"""`evaluation=tensors`: the outputs themselves, and the accuracy of a classifier whose labels are given."""

import numpy as np

from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.sample import Outputs


class TensorScorer:
    """Counts right classes; the tensor metrics are computed for every kind of evaluation."""

    def __init__(self) -> None:
        """Start without samples."""
        self._scored = 0
        self._right = [0, 0]

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Compare the best class of the first output with the label."""
        if item.label is None:
            return SampleScores()
        classes = [int(np.argmax(next(iter(outputs.values())))) for outputs in (baseline, quantized)]
        self._scored += 1
        self._right = [right + (found == item.label) for right, found in zip(self._right, classes, strict=True)]
        return SampleScores(notes={"label": item.label, "baseline_class": classes[0], "quantized_class": classes[1]})

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the accuracy."""
        if not self._scored:
            return {}
        baseline, quantized = (100.0 * right / self._scored for right in self._right)
        return {"accuracy_percent": (baseline, quantized)}
