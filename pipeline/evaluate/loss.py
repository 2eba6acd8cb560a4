"""How much worse a changed graph makes its model, in one metric, on the same samples and the same noise, again and again.

The evaluate stage scores one finished run and keeps everything; a search asks hundreds of times for one number. Here fp32
runs once, what is heard or transcribed of it is kept, and only the graph in question is run anew.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.errors import ConfigError, StageError, did_you_mean
from pipeline.evaluate.evaluation import scorer_of
from pipeline.evaluate.sample_scores import LengthsDifferError, SampleScores, summarize, tensor_scores
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.metrics.metric_registry import METRICS, Source, metrics_of
from pipeline.metrics.text_metrics import posterior_kl
from pipeline.models.matcha import Matcha
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.speech_model import HasPosteriors, Run, SpeechModel
from pipeline.record.run_log import RunLog
from pipeline.sample import Outputs, Sample


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a changed graph costs.

    Attributes:
        loss: in the metric: how much worse than fp32.
        length_change: of the longest or shortest output relative to fp32's, at worst: 0.02 is 2 %. 0 where lengths are given.
    """

    loss: float
    length_change: float


def check_metric(metric: str, kind: EvaluationKind, key: str) -> None:
    """Check that a loss can be measured in a metric.

    Raises:
        ConfigError: there is no such metric, the evaluation does not compute it, or fp32's own value is infinite.
    """
    known = metrics_of(kind)
    finite = [name for name in known if METRICS[name].baseline != np.inf]
    if metric not in finite:
        why = (
            "fp32 is infinitely good in it, so that no loss can be given"
            if metric in known
            else f"evaluation={kind.name} does not compute it"
            if metric in METRICS
            else "there is no such metric"
        )
        raise ConfigError(f"{key}: {metric!r}: {why}.{did_you_mean(metric, finite)}")


class LossEvaluator:
    """Scores changes of one graph of a model.

    Args:
        model: runs the graphs, and says what the outputs mean.
        entry: the graph that a sample enters.
        files: graph name -> its original.
        graph: the one that changes.
        items: the samples, with what is known about them.
        config: the evaluation.
        metric: what a loss is measured in.
        seed: of the noise.
        threads: intra-op threads.
    """

    def __init__(
        self,
        model: SpeechModel,
        entry: SourceGraph,
        files: Mapping[str, Path],
        graph: str,
        items: Sequence[EvaluationSample],
        config: EvaluationConfig,
        metric: str,
        *,
        seed: int,
        threads: int,
    ) -> None:
        if isinstance(model, Matcha) and not METRICS[metric].needs_audio and graph == model.entry:
            model = dataclasses.replace(model, vocoder_path=None, asr_path=None)  # what nobody listens to is not spoken
        self.metric = metric
        self.graph = graph
        self.items = list(items)
        self._model, self._entry, self._config = model, entry, config
        self._files, self._seed, self._threads = dict(files), seed, threads
        self._originals = ModelSessions(self._files, threads)
        self._before: list[Outputs] = []
        self.calls: list[list[Call]] = []
        for number, item in enumerate(self.items):
            calls: list[Call] = []
            self._before.append(model.infer(item.sample, self._originals.runner([seed, number], calls)))
            self.calls.append([call for call in calls if call.graph == graph])
            if not self.calls[-1]:
                raise StageError(f"{graph} is not run on sample {item.sample.id!r}, so that no loss of it can be measured.")

    def rng(self, number: int) -> np.random.Generator:
        """Return what the noise of a sample is drawn from, for the graph as for its original."""
        return np.random.default_rng([self._seed, number])

    def loss(self, model: onnx.ModelProto | Path, samples: int | None = None) -> Loss:
        """Return what the model loses with another graph in the place of its own.

        Args:
            model: the other graph, with the same inputs and outputs.
            samples: on the first so many; None: on all.
        """
        after = ModelSessions({**self._files, self.graph: model}, self._threads)
        return self._score(lambda number: after.runner([self._seed, number]), samples)

    def loss_of_outputs(self, outputs: Callable[[int, Sample], Outputs]) -> Loss:
        """Return what the model loses where its graph gives other outputs.

        Args:
            outputs: (number of the sample, what the graph is given) -> what it gives instead.
        """

        def run_of(number: int) -> Run:
            others = self._originals.runner([self._seed, number])
            return lambda graph, sample: outputs(number, sample) if graph == self.graph else others(graph, sample)

        return self._score(run_of, None)

    def _score(self, run_of: Callable[[int], Run], samples: int | None) -> Loss:
        items = self.items[:samples]
        arguments = (self._model, self._entry, self._config, len(items), RunLog(), self._threads)
        scorer = scorer_of(*arguments, only=self.metric) if METRICS[self.metric].needs_scorer else None
        scored: list[SampleScores] = []
        change = 0.0
        for number, item in enumerate(items):
            before, after = self._before[number], self._model.infer(item.sample, run_of(number))
            if any(np.issubdtype(a.dtype, np.floating) and not np.isfinite(a).all() for a in after.values()):
                return Loss(float("inf"), float("inf"))
            try:
                scores = self._direct(before, after) if scorer is None else scorer.score(item, before, after)
            except LengthsDifferError:
                return Loss(float("inf"), length_change(before, after))
            scores.notes.clear()  # audio among them
            scored.append(scores)
            change = max(change, length_change(before, after))
        found = summarize([self.metric], scored, {} if scorer is None else scorer.totals()).get(self.metric)
        if found is None:
            raise ConfigError(
                f"mode.metric: {self.metric} cannot be computed on the evaluation set: it needs what the set does not hold "
                "(recordings, texts or labels)."
            )
        worse = found["baseline"] - found["quantized"] if found["higher_is_better"] else found["quantized"] - found["baseline"]
        return Loss(float(worse), change)

    def _direct(self, before: Outputs, after: Outputs) -> SampleScores:
        """Score what follows from the outputs alone, without a truth."""
        if METRICS[self.metric].source is Source.posteriors:
            assert isinstance(self._model, HasPosteriors)
            return SampleScores({self.metric: posterior_kl(self._model.posteriors(before), self._model.posteriors(after))})
        return SampleScores(next(iter(tensor_scores(before, after).values())))


def length_change(before: Outputs, after: Outputs) -> float:
    """Return how much longer or shorter an axis of an output has become, relative to fp32's, at worst."""
    pairs = [pair for name, a in before.items() for pair in zip(a.shape, after[name].shape, strict=False)]
    return max((abs(is_now - was) / max(was, 1) for was, is_now in pairs), default=0.0)
