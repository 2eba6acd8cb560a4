"""The evaluate stage: fp32 and quantized on the same inputs and the same noise, scored by the model's own metrics."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.errors import ConfigError, DataError, StageError, did_you_mean
from pipeline.evaluate.changed_audio import ChangedAudio
from pipeline.evaluate.decisions import outputs_beside
from pipeline.evaluate.kinds_of_scorer import sample_rate_of, scorer_of
from pipeline.evaluate.measured_loss import measured_loss
from pipeline.evaluate.output_scores import OutputScores, Pair, judged
from pipeline.evaluate.over_time import OverTime, growth_words
from pipeline.evaluate.rollout import Rollout
from pipeline.evaluate.sample_scores import SampleScores, Scorer, length_change, per_sample_entry, summarize
from pipeline.evaluate.silence_scorer import scored_silence, silent_clips_of
from pipeline.evaluate.uncertainty import change_interval, sample_interval, worst_samples
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.session import RunError
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS, metrics_of
from pipeline.metrics.tensor_metrics import broken_values
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.speech_model import SpeechModel, TextToSpeech
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.quantize.artifact import Artifact
from pipeline.record.results import ErrorOverTime, LimitCheck, MeasuredLoss, NodeError
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
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
    pair = _Pair(model, artifacts)
    scored: list[SampleScores] = []
    outputs, of_states, one_call = OutputScores(), OutputScores(), OutputScores()
    rollout = Rollout(pair.states if isinstance(model.adapter, StepwiseModel) else {}, [item.sample for item in items])
    changed = ChangedAudio(config.listen)
    over_time, steps = OverTime(), 0
    for number, item in enumerate(items):
        if (count := model.adapter.steps(item.sample)) is not None:
            baseline, quantized, alone = pair.run_steps(item.sample, [seed, number])
            steps += count
            outputs.add([("", judged(baseline, pair.states), judged(quantized, pair.states))])
            of_states.add([("", baseline, quantized)])
            one_call.add([("", baseline, alone)])
            over_time.add(baseline, quantized, alone, pair.states)
            scored.append(_scored(scorer, item, baseline, quantized, changed))
            on_sample()
            continue
        before, after = rollout.samples(number, item.sample)
        try:
            baseline, quantized, pairs = pair.run(before, [seed, number], after)
        except RunError:  # the original's own
            if before is item.sample:
                raise
            before = rollout.begin_anew(item.sample)  # the other inputs of this sample do not suit the states
            baseline, quantized, pairs = pair.run(before, [seed, number], before)
        outputs.add(pairs)
        rollout.keep(baseline, quantized)
        if rollout.rolled_out:
            one_call.add(pair.of_one_call(before, [seed, number], baseline))
        scored.append(_scored(scorer, item, baseline, quantized, changed))
        on_sample()
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
    metrics = _with_intervals(summarize(config.metrics, scored, totals), per_sample)
    if len(by_output) > 1:
        metrics = {name: {**metric, **_of_output(name, outputs.worst)} for name, metric in metrics.items()}
    worst = worst_samples(per_sample)
    changes = over_time.results()
    for name in [name for name, one in changes.items() if one.grows]:
        run_log.warn(growth_words(name, changes[name]))
    in_silence, of_silence = _on_silence(pair, model.adapter, config, seed)
    return Evaluation(
        samples=len(items),
        metrics=metrics | of_silence,
        outputs=of_states.by_output or by_output,
        per_sample=per_sample,
        worst=None if worst is None else {"metric": worst[0], "samples": [sample["id"] for sample in worst[1]]},
        noise=pair.noise,
        silence=in_silence,
        states=pair.states,
        rolled_out=rollout.rolled_out,
        one_call=one_call.by_output,
        steps=steps,
        over_time=changes,
        length_change=pair.length_change,
        losses={name: found for name in losses_in if (found := measured_loss(name, scored, totals, items))},
    )


def _scored(
    scorer: Scorer, item: EvaluationSample, baseline: Outputs, quantized: Outputs, changed: ChangedAudio
) -> SampleScores:
    """Score one sample, and keep what is heard of it."""
    scores = scorer.score(item, baseline, quantized)
    heard, said = scores.notes.pop("audio", None), scores.notes.pop("said", None)
    if heard is not None:
        changed.add(item, scores.fidelity, heard[0], heard[1], said)
    return scores


def _on_silence(
    pair: "_Pair", adapter: SpeechModel, config: EvaluationConfig, seed: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return what both models make of clips in which nobody speaks, and the metric of it."""
    scored = scored_silence(adapter, silent_clips_of(adapter, config), seed, pair.transcribed)
    entries = [per_sample_entry(item, scores) for item, scores in scored]
    return entries, _with_intervals(summarize(config.metrics, [scores for _, scores in scored], {}), entries)


class _Pair:
    """A model as it was and as it has become, run on the same samples and the same noise."""

    def __init__(self, model: LoadedModel, artifacts: Mapping[str, Artifact]) -> None:
        self._loaded, self._model = model, model.adapter
        self._artifacts = artifacts
        self.graphs = list(model)
        self.not_a_number: dict[str, None] = {}  # outputs that fp32 itself gives NaN in
        self._before = model.originals
        changed = {name: artifact.path for name, artifact in artifacts.items()}
        self._after = ModelSessions(model, model.threads, changed, exact_products=model.exact_products)
        self.length_change = 0.0
        self.suffix = next(iter(artifacts.values())).path.name.split(".")[-2]
        self.noise = self._same_noise()

    def of_one_call(self, sample: Sample, seed: list[int], baseline: Outputs) -> list[Pair]:
        """Return fp32's outputs beside those of the quantized graph on the same inputs, of a model of one graph."""
        return [("", baseline, self._changed(lambda: self._model.infer(sample, self._after.runner(seed))))]

    def run_steps(self, sample: Sample, seed: list[int]) -> tuple[Outputs, Outputs, Outputs]:
        """Return the outputs of all steps of a sequence: before, after, and after with the states of the original.

        Args:
            sample: the sequence.
            seed: of the noise.
        """
        before, after, collected = self._before.runner(seed), self._after.runner(seed), self._model.collector(sample)

        def both(graph: str, call: Sample) -> Outputs:
            outputs = before(graph, call)
            collected.add(self._changed(lambda: after(graph, call)))
            return outputs

        baseline = self._model.infer(sample, both)
        quantized = self._changed(lambda: self._model.infer(sample, self._after.runner(seed)))
        self.length_change = max(self.length_change, length_change(baseline, quantized))
        original = Call(self._model.entry, sample, baseline)
        self._check_usable(Call(self._model.entry, sample, quantized), original)
        self._note_nan(original)
        return baseline, quantized, collected.outputs()

    def transcribed(self, number: int, sample: Sample) -> tuple[Outputs, Outputs]:
        """Return the outputs before and after, and compare nothing."""
        before = self._model.infer(sample, self._before.runner([number]))
        return before, self._changed(lambda: self._model.infer(sample, self._after.runner([number])))

    def run(self, sample: Sample, seed: list[int], changed: Sample) -> tuple[Outputs, Outputs, list[Pair]]:
        """Return the outputs before and after, and those of each inference of a quantized graph beside its original's.

        Args:
            sample: what the original is given.
            seed: of the noise.
            changed: what the quantized model is given: the same, but for states of its own.
        """
        calls: tuple[list[Call], list[Call]] = ([], [])
        baseline = self._model.infer(sample, self._before.runner(seed, calls[0]))
        quantized = self._changed(lambda: self._model.infer(changed, self._after.runner(seed, calls[1])))
        self.length_change = max(self.length_change, length_change(baseline, quantized))
        originals: dict[str, Iterator[Call]] = {name: iter([c for c in calls[0] if c.graph == name]) for name in self.graphs}
        for call in calls[1]:
            self._check_usable(call, next(originals[call.graph], None))
        pairs: list[Pair] = []
        rerun = self._after.runner(seed)
        for call in calls[0]:
            if call.graph in self._artifacts:
                # Only the first graph is sure to have been given the same in both runs.
                same = call is calls[0][0]
                outputs = calls[1][0].outputs if same else self._changed(partial(rerun, call.graph, call.sample))
                pairs.append((self._prefix(call.graph), call.outputs, outputs))
                self._note_nan(call)
        quantized = self._changed(lambda: outputs_beside(self._model, changed, rerun, baseline, quantized))
        return baseline, quantized, pairs

    def _changed(self, run: Callable[[], Outputs]) -> Outputs:
        try:
            return run()
        except RunError as error:
            files = ", ".join(artifact.path.name for artifact in self._artifacts.values())
            raise StageError(
                f"{files}: does not run on sample {error.sample!r}, on which the original does: {error.reason}. Exclude the "
                "node that it names with mode.nodes_to_exclude, or quantize fewer operator types with mode.op_types."
            ) from error

    def _check_usable(self, call: Call, original: Call | None) -> None:
        """Check that a graph's outputs are as finite as its original's."""
        file = self._artifacts[call.graph].path.name if call.graph in self._artifacts else f"the graph {call.graph}"
        for name, array in call.outputs.items():
            reference = original.outputs.get(name) if original is not None else None
            if broken := broken_values(np.zeros(0, array.dtype) if reference is None else reference, array):
                raise DataError(
                    f"{file}: the output {name!r} holds NaN or Inf on sample {call.sample.id!r} where fp32's is finite, or a "
                    f"number where fp32's is infinite ({broken} of {array.size} values). A value has left the range of its "
                    "type; keep its node in fp32 with mode.nodes_to_exclude."
                )

    def _note_nan(self, call: Call) -> None:
        for name, array in call.outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                self.not_a_number[self._prefix(call.graph) + name] = None

    def _prefix(self, graph: str) -> str:
        return "" if len(self._artifacts) == 1 else f"{graph}."

    @property
    def states(self) -> dict[str, str]:
        """Outputs that are fed back to inputs, and those inputs."""
        found = {graph: self._model.fed_back(self._loaded[graph].model.graph) for graph in self._artifacts}
        return {
            self._prefix(graph) + output: self._prefix(graph) + given
            for graph, states in found.items()
            for output, given in states.items()
        }

    def _same_noise(self) -> str | None:
        drawing = []
        for graph in self._artifacts:
            before, after = self._before.noise_of(graph), self._after.noise_of(graph)
            if others := sorted(after - before):  # fewer are fine: a branch that is never taken is gone
                path = self._artifacts[graph].path
                raise StageError(f"{path.name} draws noise in {others[0]}, its original does not; they cannot be compared.")
            if before:
                drawing.append(f"{len(before)} random node{'s' if len(before) > 1 else ''} of {graph}")
        if not drawing:
            return None
        return (
            f"{' and '.join(drawing)}: in the copies that are evaluated they read an input, which is fed with the same seeded "
            "values for both models; frame t sees the same noise whatever length a model predicts"
        )


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
