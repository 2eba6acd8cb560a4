"""Every output of a model counts: tensor metrics of each, and the worst of them as the value of the model.

A streaming model's state, a second head or token ids may be destroyed while the first output is as it was; a figure of one
output alone would not tell.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from pipeline.evaluate.sample_scores import LOWEST, differing, is_signal, tensor_scores, values_of
from pipeline.metrics.metric_registry import METRICS
from pipeline.metrics.tensor_metrics import DIRECTIONS, OF_MANY_VALUES, TENSOR_METRICS
from pipeline.sample import Array, Outputs

FEW_VALUES = 64
"""Of one output in one sample, up to which a logarithm or a direction is taken of the values of all samples together.

A voice detector gives one probability a call: where it is near 1, its error in decibels says nothing of the calls in which it
matters, and the mean of such figures flatters by tens of decibels.
"""

Pair = tuple[str, Outputs, Outputs]
"""(what the names of the outputs begin with, fp32's outputs, the changed graph's) of one inference."""


def judged(outputs: Outputs, states: Collection[str]) -> Outputs:
    """Return the outputs that a sequence is judged by: what is not fed back, where there is any.

    A wrong state shows in the outputs of the next steps as far as it matters.
    """
    return {name: array for name, array in outputs.items() if name not in states} or outputs


class OutputScores:
    """Scores of every output, one sample after the other."""

    def __init__(self) -> None:
        """Start without samples."""
        self._samples: list[dict[str, dict[str, float]]] = []
        self._values: dict[str, list[tuple[Array, Array]]] = defaultdict(list)
        self._many: set[str] = set()  # outputs that have been long in some sample

    def add(self, pairs: Iterable[Pair]) -> None:
        """Score one more sample: a graph that is run several times for it counts with the mean over its runs.

        Raises:
            LengthsDifferError: an output has another shape, and no time axis to align.
        """
        runs: dict[str, list[dict[str, float]]] = defaultdict(list)
        for prefix, reference, test in pairs:
            for name, scores in tensor_scores(reference, test).items():
                runs[prefix + name].append(scores)
                if is_signal(reference[name]):
                    self._keep(prefix + name, *values_of(name, reference[name], test[name]))
        self._samples.append({name: _mean_of(scores) for name, scores in runs.items()})

    @property
    def by_output(self) -> dict[str, dict[str, float]]:
        """Each output with its metrics over all samples."""
        names = dict.fromkeys(name for sample in self._samples for name in sample)
        return {name: _mean_of([s[name] for s in self._samples if name in s]) | self._pooled(name) for name in names}

    @property
    def worst(self) -> dict[str, str]:
        """Each metric with the output that is worst in it, the first of several."""
        found: dict[str, tuple[float, str]] = {}
        for output, scores in self.by_output.items():
            for metric, value in scores.items():
                badness = -value if METRICS[metric].higher_is_better else value
                if metric not in found or badness > found[metric][0]:
                    found[metric] = (badness, output)
        return {metric: output for metric, (_, output) in found.items()}

    def by_sample(self) -> list[dict[str, float]]:
        """Return each sample's metrics, each of the output that is worst in it over all samples.

        What is taken of all samples together is left out: see `totals`.
        """
        pooled, worst = self.totals(), self.worst
        shown = {metric: output for metric, output in worst.items() if metric not in pooled}
        return [
            {metric: sample[output][metric] for metric, output in shown.items() if metric in sample.get(output, {})}
            for sample in self._samples
        ]

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the metrics that are not a mean over samples: name -> (fp32's, the changed graph's)."""
        found = {}
        for metric, output in self.worst.items():
            baseline, pooled = METRICS[metric].baseline, self._pooled(output)
            if baseline is not None and metric in pooled:
                found[metric] = (baseline, pooled[metric])
        return found

    def _keep(self, name: str, reference: Array, test: Array) -> None:
        if reference.size > FEW_VALUES:
            self._many.add(name)
            self._values.pop(name, None)
        elif name not in self._many:
            self._values[name].append((reference.reshape(-1), test.reshape(-1)))

    def _pooled(self, name: str) -> dict[str, float]:
        """Return what is taken of all samples together, of an output of few values."""
        pairs = self._values.get(name, [])
        if not any(reference.size for reference, _ in pairs):
            return {}
        reference, test = (np.concatenate(side) for side in zip(*pairs, strict=True))
        wanted = OF_MANY_VALUES - (DIRECTIONS if max(part.size for part, _ in pairs) == 1 else frozenset())
        functions = {metric: function for metric, function in TENSOR_METRICS.items() if metric in wanted}
        return {metric: max(function(reference, test), LOWEST) for metric, function in functions.items()}


def _mean_of(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over those that have it; see `sample_scores.differing`."""
    found = {}
    for metric in dict.fromkeys(name for one in scores for name in one):
        values = [one[metric] for one in scores if metric in one]
        found[metric] = float(np.mean(differing(metric, values) or values))
    return found
