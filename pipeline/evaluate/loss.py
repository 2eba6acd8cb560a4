"""How much worse a changed graph makes its model, in one metric, on the same samples and the same noise, again and again.

The evaluate stage scores one finished run and keeps everything; a search asks hundreds of times for one number. Here fp32
runs once, its audio and transcripts are kept, and only the graph in question is run again.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, identities
from pipeline.errors import ConfigError, StageError, did_you_mean
from pipeline.evaluate.decisions import outputs_beside
from pipeline.evaluate.early_rejection import estimated, surely_above
from pipeline.evaluate.kinds_of_scorer import scorer_of
from pipeline.evaluate.measured_loss import measured_loss
from pipeline.evaluate.output_scores import OutputScores, judged
from pipeline.evaluate.rollout import Rollout
from pipeline.evaluate.sample_scores import LengthsDifferError, SampleScores, Scorer, length_change
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import RunError
from pipeline.metrics.metric_registry import METRICS, Aggregate, Source, metrics_of
from pipeline.metrics.tensor_metrics import broken_values
from pipeline.metrics.text_metrics import posterior_kl_of_tokens
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import Call, ModelSessions, SomeCalls
from pipeline.models.speech_model import HasPosteriors, Run, TextToSpeech
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.paths import settings_with_places
from pipeline.record.results import MeasuredLoss
from pipeline.record.run_log import RunLog
from pipeline.run_ahead import in_order
from pipeline.sample import Outputs, Sample


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a changed graph.

    Attributes:
        loss: in the metric: how much worse than fp32.
        length_change: of the longest or shortest output relative to fp32's, at worst: 0.02 is 2 %. 0 where lengths are given.
        measured: the loss with its interval, where that was asked for.
        samples: that it is of; fewer than there are where it was surely too much.
        of_samples: what is lost on each, where the loss is their mean.
    """

    loss: float
    length_change: float
    measured: MeasuredLoss | None = None
    samples: int = 0
    of_samples: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a changed graph may lose; the measurement of one that surely loses more is ended.

    Attributes:
        loss: in the metric; None: any.
        length_change: relative to fp32's, at worst; None: any.
    """

    loss: float | None = None
    length_change: float | None = None


ANYTHING = Allowed()
LARGE = ("audio", "said")  # notes of a sample; an interval needs the others: transcripts, labels


def check_metric(metric: str, kind: EvaluationKind, key: str) -> None:
    """Check that a loss can be measured in a metric.

    Raises:
        ConfigError: the metric does not exist, the evaluation does not compute it, or fp32's own value is infinite.
    """
    known = metrics_of(kind)
    finite = [name for name in known if METRICS[name].baseline != np.inf and METRICS[name].source is not Source.silence]
    if metric not in finite:
        why = (
            "fp32 is infinitely good in it, so that no loss can be given"
            if metric in known and METRICS[metric].baseline == np.inf
            else "it is measured on clips of silence, which a search does not run on"
            if metric in known
            else f"evaluation={kind.name} does not compute it"
            if metric in METRICS
            else "there is no such metric"
        )
        raise ConfigError(f"{key}: {metric!r}: {why}.{did_you_mean(metric, finite)}")


class LossEvaluator:
    """Scores changes of one graph of a model.

    Args:
        model: the original.
        graph: the one of its graphs that changes.
        items: the samples, with what is known about them.
        config: the evaluation.
        metric: what a loss is measured in.
        seed: of the noise.
    """

    def __init__(
        self,
        model: LoadedModel,
        graph: str,
        items: Sequence[EvaluationSample],
        config: EvaluationConfig,
        metric: str,
        *,
        seed: int,
    ) -> None:
        adapter = model.adapter
        if isinstance(adapter, TextToSpeech) and not METRICS[metric].needs_audio and adapter.mel_depends_on(graph):
            adapter = adapter.without_audio()
        self.metric = metric
        self.graph = graph
        self.items = list(items)
        self._model, self._adapter, self._config, self._seed = model, adapter, config, seed
        self.between_samples: Callable[[], None] = lambda: None  # may raise, to end a measurement
        self.seconds_per_sample = 0.0  # that scoring took, the last time
        self._before: list[Outputs] = []
        self._states = adapter.fed_back(model.entry.model.graph) if isinstance(adapter, StepwiseModel) else {}
        self._measure: list[float] = []  # what a model that was scored on all samples loses on each: see early_rejection.py
        self._anew: set[int] = set()  # numbers of samples that fp32 does not run on with the states of the call before
        rollout = self._rollout()
        self.calls: list[list[Call]] = []  # of a sequence of a streaming model, the first step and the middle one
        for number, item in enumerate(self.items):
            steps, given = adapter.steps(item.sample), rollout.samples(number, item.sample)[0]
            recorder = SomeCalls(None if steps is None or graph != adapter.entry else {0, steps // 2}, graph)
            run = model.originals.runner([seed, number], recorder)
            try:
                self._before.append(adapter.infer(given, run))
            except RunError:
                if given is item.sample:
                    raise
                self._anew.add(number)
                self._before.append(adapter.infer(rollout.begin_anew(item.sample), run))
            rollout.keep(self._before[-1], self._before[-1])
            self.calls.append(recorder.calls)
            if not self.calls[-1]:
                raise StageError(f"{graph} is not run on sample {item.sample.id!r}, so that no loss of it can be measured.")
        self._rolled_out = rollout.rolled_out > 0

    @property
    def of_single_calls(self) -> bool:
        """Whether each sample is one call of the graph, which has nothing to do with the others."""
        return not self._rolled_out and all(len(calls) == 1 for calls in self.calls)

    @property
    def identity(self) -> tuple[object, ...]:
        """What a loss depends on beside the changed graph."""
        return (
            self._model.identity,
            self.graph,
            self.metric,
            identities(self.items),
            settings_with_places(self._config),
            self._seed,
        )

    @property
    def exact_products(self) -> bool:
        """Whether changed graphs are scored without sums of products that saturate on this processor."""
        return self._model.exact_products

    def rng(self, number: int) -> np.random.Generator:
        """Return what the noise of a sample is drawn from, for the graph as for its original."""
        return np.random.default_rng([self._seed, number])

    def loss(
        self,
        model: onnx.ModelProto | Path,
        samples: int | None = None,
        *,
        allowed: Allowed = ANYTHING,
        with_interval: bool = False,
    ) -> Loss:
        """Return the loss of the model with another graph in the place of its own.

        Args:
            model: the other graph, with the same inputs and outputs.
            samples: on the first so many; None: on all.
            allowed: end where it surely loses more; the loss is then estimated from the samples so far.
            with_interval: also compute its interval.
        """
        after = ModelSessions(self._model, self._model.threads, {self.graph: model}, exact_products=self.exact_products)
        run_of = lambda number: after.runner([self._seed, number])  # noqa: E731
        return self._score(run_of, allowed, samples, with_interval=with_interval)

    def loss_of_outputs(self, outputs: Callable[[int, Sample], Outputs], samples: int | None = None) -> Loss:
        """Return the loss of the model where its graph gives other outputs.

        Args:
            outputs: (number of the sample, what the graph is given) -> what it gives instead.
            samples: on the first so many; None: on all.
        """

        def run_of(number: int) -> Run:
            others = self._model.originals.runner([self._seed, number])
            return lambda graph, sample: outputs(number, sample) if graph == self.graph else others(graph, sample)

        return self._score(run_of, ANYTHING, samples)

    def _score(
        self, run_of: Callable[[int], Run], allowed: Allowed, samples: int | None = None, *, with_interval: bool = False
    ) -> Loss:
        scorer = self._scorer
        if scorer is not None:
            scorer.restart()
        scored: list[SampleScores] = []
        outputs = OutputScores()
        change, rollout = 0.0, self._rollout()
        losses: list[float] = []
        items = self.items[:samples]

        def outputs_of(number: int) -> Outputs:
            sample = self.items[number].sample
            given = sample if number in self._anew else rollout.samples(number, sample)[1]
            return self._run(given, run_of(number), self._before[number])

        begun = time.monotonic()
        one_by_one = 1 if self._rolled_out else None  # a call is given what the one before has left
        with in_order(outputs_of, range(len(items)), threads=self._model.threads, workers=one_by_one) as results:
            for number, item in enumerate(items):
                before = self._before[number]
                self.between_samples()
                try:
                    after = next(results)
                except (RunError, EndedError):  # as unusable as one that gives NaN
                    return Loss(float("inf"), float("inf"), samples=number + 1)
                if any(broken_values(before[name], array) for name, array in after.items() if name in before):
                    return Loss(float("inf"), float("inf"), samples=number + 1)
                rollout.keep(before, after)
                try:
                    if METRICS[self.metric].of_outputs:
                        judged_by = self._states if self._adapter.steps(item.sample) is not None else {}
                        outputs.add([("", judged(before, judged_by), judged(after, judged_by))])
                    scores = self._direct(before, after) if scorer is None else scorer.score(item, before, after)
                except LengthsDifferError:
                    return Loss(float("inf"), length_change(before, after), samples=number + 1)
                scores.notes = {name: note for name, note in scores.notes.items() if name not in LARGE}
                scored.append(scores)
                change = max(change, length_change(before, after))
                if allowed.length_change is not None and change > allowed.length_change:
                    break
                if self._of_single_samples and (one := self._loss_of(scores)) is not None:
                    losses.append(one)
                    if allowed.loss is not None and surely_above(losses, allowed.loss, self._measure):
                        break
        self.seconds_per_sample = (time.monotonic() - begun) / max(len(scored), 1)
        if len(losses) == len(self.items) and min(losses) > 0:
            self._measure = losses
        totals = {**outputs.totals(), **({} if scorer is None else scorer.totals())}
        if METRICS[self.metric].of_outputs:
            scored = [SampleScores(scores) for scores in outputs.by_sample()]
        found = measured_loss(self.metric, scored, totals, items[: len(scored)], with_interval=with_interval)
        if found is None or found.value is None:
            raise ConfigError(
                f"mode.metric: {self.metric} cannot be computed on the evaluation set: it needs what the set does not hold "
                "(recordings, texts or labels)."
            )
        ended = len(scored) < len(items) and len(losses) == len(scored)
        value = estimated(losses, self._measure) if ended else found.value
        of_samples = tuple(losses) if len(losses) == len(scored) else ()
        return Loss(value, change, found if with_interval else None, len(scored), of_samples)

    @property
    def _of_single_samples(self) -> bool:
        """Whether the loss is the mean of those of single samples."""
        metric = METRICS[self.metric]
        return not metric.of_outputs and metric.aggregate is Aggregate.mean and metric.source is not Source.classes

    def _loss_of(self, scores: SampleScores) -> float | None:
        """Return what is lost on one sample; None where the metric is not known of it."""
        metric, sign = METRICS[self.metric], -1.0 if METRICS[self.metric].higher_is_better else 1.0
        if self.metric in scores.truth:
            before, after = scores.truth[self.metric]
            return sign * (after - before)
        if self.metric in scores.fidelity and metric.baseline is not None:
            return sign * (scores.fidelity[self.metric] - metric.baseline)
        return None

    @cached_property
    def _scorer(self) -> Scorer | None:
        """What scores in the metric, and keeps what follows from fp32 alone; None where the outputs tell all."""
        if not METRICS[self.metric].needs_scorer:
            return None
        arguments = (self._adapter, self._model.entry, self._config, RunLog(), self._model.threads)
        return scorer_of(*arguments, only=self.metric, again=True)

    def _rollout(self) -> Rollout:
        samples = [item.sample for item in self.items]
        whole = any(self._adapter.steps(sample) is not None for sample in samples)  # sequences do not follow each other
        return Rollout({} if whole else self._states, samples)

    def _run(self, sample: Sample, run: Run, before: Outputs) -> Outputs:
        """Run the changed model: to compare posteriors, on fp32's decisions alone."""
        posteriors = METRICS[self.metric].source is Source.posteriors
        own = None if posteriors else self._adapter.infer(sample, run)
        return outputs_beside(self._adapter, sample, run, before, own)

    def _direct(self, before: Outputs, after: Outputs) -> SampleScores:
        """Score what follows from the outputs alone, without a truth."""
        if METRICS[self.metric].source is not Source.posteriors:
            return SampleScores()  # `OutputScores` has it
        assert isinstance(self._adapter, HasPosteriors)
        found = posterior_kl_of_tokens(*(self._adapter.posteriors(outputs) for outputs in (before, after)))
        return SampleScores({} if found is None else {self.metric: found})
