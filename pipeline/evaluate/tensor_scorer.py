"""`evaluation=tensors`: the outputs themselves, the accuracy of a classifier with labels, the decisions of a detector."""

import numpy as np

from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.metrics.decision_metrics import decision_auc, f1_of_decisions, probabilities_of, segment_f1
from pipeline.models.speech_model import Detects
from pipeline.sample import Outputs


def _of_decisions(before: Outputs, after: Outputs) -> dict[str, float]:
    """Return the metrics of decisions; none where the first output is no probability a step, in both models."""
    outputs = [next(iter(side.values()), None) for side in (before, after)]
    reference, test = (None if one is None else probabilities_of(one) for one in outputs)
    if reference is None or test is None or reference.shape != test.shape or reference.min() == reference.max():
        return {}
    area = decision_auc(reference, test)
    return {**({} if area is None else {"decision_auc": area}), "segment_f1": segment_f1(reference, test)}


def _of_detector(model: Detects, before: Outputs, after: Outputs) -> dict[str, float]:
    """Return the metrics of decisions as the client of a detector takes them."""
    reference, test = (model.probabilities(outputs) for outputs in (before, after))
    area = decision_auc(reference, test, model.speech_from)
    same = f1_of_decisions(*(model.speech(probabilities) for probabilities in (reference, test)))
    return {**({} if area is None else {"decision_auc": area}), "segment_f1": same}


class TensorScorer:
    """Counts right classes, and compares decisions; the tensor metrics are computed for every kind of evaluation."""

    def __init__(self, detector: Detects | None = None) -> None:
        """Start without samples; a detector knows what its client decides."""
        self._detector = detector
        self.restart()

    def restart(self) -> None:
        """Forget what was scored."""
        self._scored = 0
        self._right = [0, 0]

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Compare the best class of the first output with the label; of a detector, its decisions with fp32's."""
        if self._detector is not None:
            return SampleScores(_of_detector(self._detector, baseline, quantized))
        if item.label is None:
            return SampleScores(_of_decisions(baseline, quantized))
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
