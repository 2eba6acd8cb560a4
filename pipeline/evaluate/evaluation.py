"""The evaluate stage: fp32 and quantized on the same inputs and the same noise, scored by the model's own metrics."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.errors import ConfigError, StageError, did_you_mean
from pipeline.evaluate.both_models import BothModels, Ran
from pipeline.evaluate.by_length import by_length, with_seconds
from pipeline.evaluate.changed_audio import ChangedAudio
from pipeline.evaluate.kinds_of_scorer import sample_rate_of, scorer_of
from pipeline.evaluate.measured_loss import measured_loss
from pipeline.evaluate.output_scores import OutputScores, judged
from pipeline.evaluate.over_time import OverTime, growth_words
from pipeline.evaluate.rollout import Rollout
from pipeline.evaluate.sample_scores import SampleScores, Scorer, per_sample_entry, summarize
from pipeline.evaluate.silence_scorer import scored_silence, silent_clips_of
from pipeline.evaluate.uncertainty import change_interval, sample_interval, worst_samples
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.session import RunError
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS, metrics_of
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.speech_model import SpeechModel, TextToSpeech
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.quantize.artifact import Artifact
from pipeline.record.results import ErrorOverTime, LengthRange, LimitCheck, MeasuredLoss, NodeError
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.run_ahead import in_order
from pipeline.sample import Outputs, Sample


@dataclass(frozen=True)
class Evaluation:
    """What the stage gives: the report's `evaluation`.

    Attributes:
        samples: how many were scored.
        metrics: name -> baseline, quantized, delta, unit, higher_is_better, version, samples (how many have it), and 95 %
            intervals over samples: `interval` of the quantized model's value, `delta_interval` of the paired difference from
            fp32's; None where not known. Of several outputs, `output` is the worst one, which the value is of.
        outputs: output name -> its metrics over all samples.
        states: output name -> the input that it is fed back to, of streaming models: its error grows from call to call.
        rolled_out: how many samples got the states that the sample before had left, in both models their own.
        one_call: output name -> its metrics where both models get fp32's states at each call; empty where none is rolled out.
        steps: of all samples together, where they are sequences that a streaming model is run over step by step.
        over_time: output name -> its error over the steps.
        by_length: of a recogniser, its error rates by the length of the recordings.
        per_sample: id, scores and transcripts of each sample.
        silence: the same of clips of silence and noise.
        worst: the most sensitive metric of single samples, and the ids of the samples that are worst in it.
        noise: how both models get the same noise; None where the graph draws none.
        length_change: of the longest or shortest output relative to fp32's, at worst: 0.02 is 2 %.
        losses: metric -> how much worse than fp32, with its interval, of the metrics that have a limit.
        limits: each limit of quality, and where the loss lies.
        node_errors: graph name -> the error of each of its nodes, in their order; empty where it was not measured.
    """

    samples: int
    metrics: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, float]]
    per_sample: list[dict[str, Any]]
    worst: dict[str, Any] | None
    noise: str | None
    silence: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    rolled_out: int = 0
    one_call: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: int = 0
    over_time: dict[str, ErrorOverTime] = field(default_factory=dict)
    by_length: list[LengthRange] = field(default_factory=list)
    length_change: float = 0.0
    losses: dict[str, MeasuredLoss] = field(default_factory=dict)
    limits: list[LimitCheck] = field(default_factory=list)
    node_errors: dict[str, list[NodeError]] = field(default_factory=dict)


def check_evaluation(model: SpeechModel, config: EvaluationConfig) -> None:
    """Check, before anything runs, that the evaluation fits the model.

    Raises:
        ConfigError: the kind does not fit the model, or a metric does not exist or is not of this kind.
    """
    if config.kind not in model.evaluations:
        allowed = ", ".join(sorted(kind.name for kind in model.evaluations))
        raise ConfigError(f"evaluation.kind: {config.kind.name} does not fit the model {model.name}; allowed: {allowed}.")
    known = metrics_of(config.kind)
    for name in config.metrics:
        if name not in known:
            where = f" of evaluation={config.kind.name}" if name in METRICS else ""
            raise ConfigError(f"evaluation.metrics: {name!r} is not a metric{where}.{did_you_mean(name, known)}")
    if config.labels is not None and config.kind is not EvaluationKind.tensors:
        raise ConfigError("evaluation.labels: classes are compared by evaluation=tensors only.")


def evaluate(
    model: LoadedModel,
    artifacts: Mapping[str, Artifact],
    items: Sequence[EvaluationSample],
    config: EvaluationConfig,
    directory: RunDirectory,
    run_log: RunLog,
    *,
    seed: int,
    losses_in: Collection[str] = (),
    on_sample: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model with quantized graphs against the original.

    The whole model runs twice on each sample, once with its own graphs and once with those that were quantized in their
    place. Besides, each quantized graph is compared with its original on what the original model gives it. A model of one
    graph that feeds states back is run over whole sequences, or over samples that are calls of one stream: see `Rollout`.

    Args:
        model: the original.
        artifacts: graph name -> the quantized graph.
        items: the samples, with what is known about them.
        config: what to compare.
        directory: where audio goes.
        run_log: notes what was read.
        seed: of the noise that a stochastic graph gets.
        losses_in: metrics whose loss is wanted, reported or not.
        on_sample: called after each sample.

    Raises:
        DataError: a sample lacks what the metrics need.
        StageError: outputs cannot be compared.
    """
    scorer = scorer_of(model.adapter, model.entry, config, run_log, model.threads)
    pair = BothModels(model, artifacts)
    changed = ChangedAudio(config.listen)
    run = _Scored(pair, model, items, seed)
    run.score(partial(_scored, scorer, changed), on_sample)
    scored, outputs, steps = run.scored, run.outputs, run.steps
    if changed:
        changed.write(directory, pair.suffix, sample_rate_of(model.adapter, model.entry, config), run_log)
    if isinstance(model.adapter, TextToSpeech):  # the models that synthesised and recognised the audio
        run_log.read_hashed(*(file for name in model.adapter.companions for file in model[name].files))
    for scores, of_outputs in zip(scored, outputs.by_sample(), strict=True):
        scores.fidelity = {**of_outputs, **scores.fidelity}
    by_output, totals = outputs.by_output, {**outputs.totals(), **scorer.totals()}
    if not by_output and not totals:
        raise StageError("none of the model's outputs can be compared: on no sample does fp32 give a value that is finite.")
    for name in pair.not_a_number:
        run_log.warn(f"{name}: fp32's own output holds NaN on some samples; those values are not compared.")
    per_sample = [per_sample_entry(item, scores) for item, scores in zip(items, scored, strict=True)]
    summary = summarize(config.metrics, scored, totals)
    per_sample = with_seconds(per_sample, items, summary)
    metrics = _with_intervals(summary, per_sample)
    if len(by_output) > 1:
        metrics = {name: {**metric, **_of_output(name, outputs.worst)} for name, metric in metrics.items()}
    worst = worst_samples(per_sample)
    changes = run.over_time.results()
    for name in [name for name, one in changes.items() if one.grows]:
        run_log.warn(growth_words(name, changes[name]))
    in_silence, of_silence = _on_silence(pair, model.adapter, config, seed)
    return Evaluation(
        samples=len(items),
        metrics=metrics | of_silence,
        outputs=run.of_states.by_output or by_output,
        per_sample=per_sample,
        worst=None if worst is None else {"metric": worst[0], "samples": [sample["id"] for sample in worst[1]]},
        noise=pair.noise,
        silence=in_silence,
        states=pair.states,
        rolled_out=run.rollout.rolled_out,
        one_call=run.one_call.by_output,
        steps=steps,
        over_time=changes,
        by_length=by_length(per_sample, metrics),
        length_change=pair.length_change,
        losses={name: found for name in losses_in if (found := measured_loss(name, scored, totals, items))},
    )


class _Scored:
    """The samples of an evaluation, run and scored one after the other; where cores are idle, further ones run meanwhile.

    Attributes:
        scored: of each sample.
        outputs: of each inference of a quantized graph.
        of_states: of sequences, the outputs that are fed back as well.
        one_call: of calls that begin with the states of fp32.
        over_time: of the steps of sequences.
        steps: of all sequences.
        rollout: states on their way through samples that are calls of one stream.
    """

    def __init__(self, pair: BothModels, model: LoadedModel, items: Sequence[EvaluationSample], seed: int) -> None:
        self._pair, self._model, self._items, self._seed = pair, model, items, seed
        self.scored: list[SampleScores] = []
        self.outputs, self.of_states, self.one_call = OutputScores(), OutputScores(), OutputScores()
        self.over_time, self.steps = OverTime(), 0
        self.rollout = Rollout(pair.states if isinstance(model.adapter, StepwiseModel) else {}, [item.sample for item in items])

    def score(self, score: Callable[[EvaluationSample, Outputs, Outputs], SampleScores], on_sample: Callable[[], None]) -> None:
        """Run and score all samples."""
        pair, seed, counts = self._pair, self._seed, [self._model.adapter.steps(item.sample) for item in self._items]
        streaming = bool(pair.states) or any(count is not None for count in counts)  # each call depends on the one before

        def both(number: int) -> Ran:
            sample = self._items[number].sample
            return pair.run(sample, [seed, number], sample)

        with in_order(both, range(len(counts)), threads=self._model.threads, workers=1 if streaming else None) as results:
            for number, (item, count) in enumerate(zip(self._items, counts, strict=True)):
                if count is not None:
                    baseline, quantized = self._run_steps(number, item.sample, count)
                else:
                    ran = self._run_call(number, item.sample) if streaming else next(results)
                    pair.note(ran)
                    baseline, quantized = ran.baseline, ran.quantized
                    self.outputs.add(ran.pairs)
                self.scored.append(score(item, baseline, quantized))
                on_sample()

    def _run_steps(self, number: int, sample: Sample, count: int) -> tuple[Outputs, Outputs]:
        """Run a sequence; return what both models give."""
        states = self._pair.states
        ran = self._pair.run_steps(sample, [self._seed, number])
        self.steps += count
        self.outputs.add([("", judged(ran.before, states), judged(ran.after, states)), *ran.further])
        self.of_states.add([("", ran.before, ran.after), *ran.further])
        self.one_call.add([("", ran.before, ran.alone)])
        self.over_time.add(ran.before, ran.after, ran.alone, states)
        return ran.baseline, ran.quantized

    def _run_call(self, number: int, sample: Sample) -> Ran:
        """Run a call of a stream."""
        before, after = self.rollout.samples(number, sample)
        try:
            found = self._pair.run(before, [self._seed, number], after)
        except RunError:  # the original's own
            if before is sample:
                raise
            before = self.rollout.begin_anew(sample)  # the other inputs of this sample do not suit the states
            found = self._pair.run(before, [self._seed, number], before)
        self.rollout.keep(found.baseline, found.quantized)
        if self.rollout.rolled_out:
            self.one_call.add(self._pair.of_one_call(before, [self._seed, number], found.baseline))
        return found


def _scored(
    scorer: Scorer, changed: ChangedAudio, item: EvaluationSample, baseline: Outputs, quantized: Outputs
) -> SampleScores:
    """Score one sample, and keep what is heard of it."""
    scores = scorer.score(item, baseline, quantized)
    heard, said = scores.notes.pop("audio", None), scores.notes.pop("said", None)
    if heard is not None:
        changed.add(item, scores.fidelity, heard[0], heard[1], said)
    return scores


def _on_silence(
    pair: BothModels, adapter: SpeechModel, config: EvaluationConfig, seed: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return what both models make of clips in which nobody speaks, and the metric of it."""
    scored = scored_silence(adapter, silent_clips_of(adapter, config), seed, pair.transcribed)
    entries = [per_sample_entry(item, scores) for item, scores in scored]
    return entries, _with_intervals(summarize(config.metrics, [scores for _, scores in scored], {}), entries)


def _of_output(metric: str, worst: Mapping[str, str]) -> dict[str, str]:
    return {"output": worst[metric]} if metric in worst else {}


def _with_intervals(metrics: dict[str, dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def ends(interval: Interval | None) -> dict[str, float] | None:
        return None if interval is None else {"low": interval.low, "high": interval.high}

    return {
        name: metric
        | {"interval": ends(sample_interval(samples, name)), "delta_interval": ends(change_interval(samples, name))}
        for name, metric in metrics.items()
    }
