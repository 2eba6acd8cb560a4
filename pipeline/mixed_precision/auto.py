"""`mode=auto`: a search for the precision of each node, within a limit on loss, speed or size."""

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx

from pipeline.calibration.derived_tensors import quantizable_tensors
from pipeline.calibration.infinite_tensors import infinite_tensors
from pipeline.config.choices import RangeMethod
from pipeline.config.mode_settings import Algorithms, AutoConfig
from pipeline.evaluate.kinds_of_scorer import audio_rate_of
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.shorten_samples import cropped
from pipeline.graph.source_graph import SourceGraph
from pipeline.interruption import held, postpone
from pipeline.measure.remote_host import LostDeviceError
from pipeline.metrics.metric_registry import METRICS, Source, proxy_of
from pipeline.mixed_precision.beyond_budget import BeyondBudget
from pipeline.mixed_precision.candidate_builder import Builder, settings_of
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext, graph_of, plan_of_graph
from pipeline.mixed_precision.candidates import Candidate, best_of
from pipeline.mixed_precision.confirmation import confirmed
from pipeline.mixed_precision.cost_model import KernelSavings, kernel_savings
from pipeline.mixed_precision.default_budget import budget_of
from pipeline.mixed_precision.first_answer import best_so_far, first_candidate, taken
from pipeline.mixed_precision.greedy_knapsack import Step, fastest_choice, front_to_back, path_of
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.mixed_precision.range_method import use_best_method, use_first_method
from pipeline.mixed_precision.search_inputs import SearchInputs
from pipeline.mixed_precision.search_report import answer, rows, unmeasured, warnings_of
from pipeline.mixed_precision.sensitivity import FEWEST, Losses, sensitivities
from pipeline.mixed_precision.smaller_file import smaller_file
from pipeline.mixed_precision.time_limit import (
    CANDIDATES,
    OutOfTimeError,
    TimeLimit,
    enough_seconds,
    estimated_seconds,
    in_words,
)  # fmt: skip
from pipeline.mixed_precision.typical_sample import rather_short, typical
from pipeline.mixed_precision.utilities import utilities_of
from pipeline.models.speech_model import HasPosteriors
from pipeline.optimize.around_quantization import layouts_for, opened
from pipeline.optimize.engine import Rewritten
from pipeline.own_time import own_time
from pipeline.ptq.algorithms import fold
from pipeline.ptq.reconstructed import check_samples, reconstructed
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.silent_tensors import note_on_silence
from pipeline.quantize.static_matmul_scales import nodes_with_fixed_scales
from pipeline.record.results import Kept, MeasuredLoss, Reconstruction

log = logging.getLogger(__name__)

SAMPLES = 24  # of the evaluation set, that candidates are measured on
SAMPLES_IN_STEPS = 100  # where the metric moves in steps, of a word or a class
PROBE_SHARE, PROBE_LEAST = 0.1, 32  # of a sample's length, and positions, that each node is measured on
CALIBRATION_SHARE, CALIBRATION_LEAST = 0.33, 128
# Of the time that is left, after which a step is ended: rewriting, choosing how ranges follow, measuring what nodes gain and
# lose. Nodes that have not been measured by then stay float.
REWRITING_SHARE, METHODS_SHARE, GAINS_SHARE, NODES_SHARE = 0.25, 0.15, 0.3, 0.6
SCORING_SHARE, LEAST_SAMPLES = 0.4, 4  # of all of the time, for candidates; on a slow machine they are scored on fewer samples
ROUNDING_RUNS = 3.0  # times what calibration took: less time than that is better spent without rounding
SHORT = 0.5  # of all of the time: who expects to need more wants a small file to fall back on
CONFIRMING_SHARE = 0.15  # of all of the time, kept for the check of the choice


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        model: the quantized graph.
        plan: which node became what, and why the others did not.
        rewritten: the float rewrites that were kept and refused.
        report: the report's `search.<graph>`.
        warnings: what a user must know first.
        reconstruction: what was learned of its numbers, if that was asked for and is in it.
    """

    model: onnx.ModelProto
    plan: Plan
    rewritten: Rewritten | None
    report: dict[str, Any]
    warnings: tuple[str, ...]
    reconstruction: Reconstruction | None = None


def search(source: SourceGraph, prepared: PreparedGraph, mode: AutoConfig, inputs: SearchInputs, *, threads: int) -> Found:
    """Find the precision of each node of a graph.

    Args:
        source: the graph as loaded.
        prepared: the graph as any quantizer gets it; it may be changed.
        mode: the settings.
        inputs: the model and its data.
        threads: intra-op threads that the model will run with.

    Raises:
        ConfigError: a setting means nothing in this graph, or the metric cannot be computed.
    """
    with inputs.progress.status(f"search {source.name}", mode.seconds) as tell:
        return _Search(source, prepared, mode, inputs, threads, tell).run()


class _Search:
    """One search, step by step.

    First it makes sure that there is an answer: once calibrated, the graph is built in integers as a whole, and held; then it,
    another one and the float graph are measured. What follows may end at any time, when `mode.seconds` are over or a signal
    comes, with the best of what was measured by then.
    """

    def __init__(
        self,
        source: SourceGraph,
        prepared: PreparedGraph,
        mode: AutoConfig,
        inputs: SearchInputs,
        threads: int,
        tell: Callable[[str], None],
    ) -> None:
        self._limit = TimeLimit(mode.seconds)
        self._source, self._prepared, self._mode, self._inputs = source, prepared, mode, inputs
        self._threads, self._tell = threads, tell
        self._budget = budget_of(mode, inputs.evaluation, inputs.model.adapter, source.name)
        self._fine = proxy_of(self._budget.metric)
        if METRICS[self._fine].source is Source.posteriors and not isinstance(inputs.model.adapter, HasPosteriors):
            self._fine = self._budget.metric  # a transducer of which only the tokens are known
        self._selection = inputs.selection
        self._rewritten: Rewritten | None = None
        self._losses: Losses = {}
        self._worthwhile: list[tuple[str, Precision]] = []
        self._gained: KernelSavings = {}
        self._first: Candidate | None = None
        self._found: CandidateSearch | None = None
        self._step, self._since, self._how = "", self._limit.start, ""
        self._paths: list[list[Step]] = []
        self._learned: dict[str, Reconstruction] = {}

    def run(self) -> Found:
        """Search, and return the answer."""
        stopped: str | None = None
        checked: tuple[Candidate, bool, MeasuredLoss] | None = None
        try:
            self._estimate()
            self._make_ready()
            self._measure_wholes()
            try:
                self._measure_nodes()
                self._follow_paths()
            except OutOfTimeError:
                stopped = self._step
            if self._mode.reconstruct:
                self._reconstruct()
            checked = self._confirm()
            self._begin("writing the choice")
        except (KeyboardInterrupt, LostDeviceError) as error:
            if not any(c.choice for c in self._candidates):
                raise
            self._how = "lost its device" if isinstance(error, LostDeviceError) else "interrupted"
            postpone(error)
            stopped = self._step
        try:
            with held():
                found = self._answer(checked, stopped, interrupted=checked is None)
        except KeyboardInterrupt as error:  # that came meanwhile: the answer is there
            postpone(error)
        return found

    @property
    def _candidates(self) -> list[Candidate]:
        """What was tried, and what was built before anything was tried."""
        tried = self._found.candidates if self._found is not None else []
        return [*tried, *([self._first] if self._first is not None and not any(c.choice for c in tried) else [])]

    def _begin(self, step: str) -> None:
        now = own_time()
        if self._step:
            log.info("%s took %.1f s", self._step, now - self._since)
        self._step, self._since = step, now
        self._tell(step)

    def _estimate(self) -> None:
        """Run the model once or twice; say what the search will take, and choose on how many samples it can be afforded."""
        mode, inputs, source = self._mode, self._inputs, self._source
        self._begin("estimating how long it takes")
        given = inputs.calibration[source.name]
        if mode.reconstruct:
            check_samples(given)
        middle = sorted(self._selection, key=lambda item: item.sample.size)[len(self._selection) // 2]
        self._model_s = model_s = _seconds_of(lambda: inputs.evaluator(source.name, self._fine, [middle]))
        begun = own_time()
        session = open_session(source.path, self._threads)
        self._session_s = own_time() - begun
        typical = sorted(given, key=lambda sample: sample.size)[len(given) // 2]
        graph_s = min(_seconds_of(lambda: infer(session, typical)) for _ in range(2))
        usual = mode.samples or (SAMPLES if self._fine == self._budget.metric else SAMPLES_IN_STEPS)
        self._samples = min(usual, len(self._selection))
        if mode.samples is None:
            affordable = int(SCORING_SHARE * mode.seconds / (CANDIDATES * model_s))
            self._samples = max(min(self._samples, affordable), min(LEAST_SAMPLES, self._samples))
        self._parts = estimated_seconds(
            graph_s=graph_s, model_s=model_s, groups=sum(node.op_type in mode.op_types for node in source.model.graph.node),
            calibration=round(CALIBRATION_SHARE * len(given)), probes=PROBE_SHARE * mode.probes, samples=self._samples,
            whole=len(self._selection), rewriting=mode.optimize,
        )  # fmt: skip
        needed = sum(self._parts.values())
        short = f"; it ends after mode.seconds={mode.seconds:g} with the best so far" if needed > mode.seconds else ""
        few = "" if self._samples in (usual, len(self._selection)) else f" Candidates are scored on {self._samples} samples."
        log.info("The search for %s takes %s%s.%s", source.name, in_words(self._parts), short, few)

    def _make_ready(self) -> None:
        """Rewrite, calibrate, choose how ranges follow."""
        mode, inputs, source, threads = self._mode, self._inputs, self._source, self._threads
        given = inputs.calibration[source.name]
        prepared = self._prepared
        if mode.optimize:
            self._begin("rewriting float operators")
            until = self._limit.share(REWRITING_SHARE)
            self._rewritten = opened(prepared, mode, rather_short(given), threads, until=until, place=inputs.place)
            prepared = replace(prepared, model=with_shapes(self._rewritten.model))
        self._begin("calibrating")
        fold(prepared.model, Algorithms(fold_batch_norm=True))
        static = settings_of(mode)
        calibration = cropped(source.model, given, CALIBRATION_SHARE, CALIBRATION_LEAST, threads)
        infinite = infinite_tensors(prepared.model, quantizable_tensors(prepared.model), calibration, threads=threads)
        groups, self._fixed = groups_of(prepared, static, infinite)
        measured = inputs.statistics_of(calibration, infinite)
        self._builder = Builder(
            prepared.model, groups, static, calibration, measured, threads=threads, seed=inputs.seed, pairs=not mode.reconstruct
        )
        self._groups = list(self._builder.groups)  # without integers for tensors that calibration has seen nothing of
        use_first_method(self._builder, mode)
        self._calibration_s = own_time() - self._since
        self._begin("building a first int8 graph")
        self._first = first_candidate(self._builder, source.size_bytes)
        self._begin("choosing how ranges follow")
        probes = inputs.short_utterances(mode.probes, PROBE_SHARE, PROBE_LEAST)
        self._probes = inputs.evaluator(source.name, self._fine, probes)
        if mode.method is None:
            use_best_method(self._builder, self._probes, until=self._limit.share(METHODS_SHARE))

    def _measure_wholes(self) -> None:
        """Measure the float graph and whole quantized ones: the first answer, which no limit of time ends."""
        self._begin("measuring whole graphs")
        source, builder = self._source, self._builder
        self._evaluator = self._inputs.evaluator(source.name, self._budget.metric, self._selection[: self._samples])
        given = [call.sample for calls in self._evaluator.calls for call in calls]
        parts, sample, seconds = typical(given, source.model, self._threads, self._inputs.place)
        self._trials = TrialContext(
            source.model, source.size_bytes, builder, self._evaluator, [sample], self._threads, layouts_for(self._mode),
            self._limit, parts=parts, inference_s=seconds, session_s=self._session_s, place=self._inputs.place,
        )  # fmt: skip
        self._found = CandidateSearch(self._trials, self._budget)
        builder.rounding = False  # it can wait
        self._found.measure_wholes(stored=sum(self._parts.values()) > SHORT * self._mode.seconds)
        builder.rounding = self._limit.left > ROUNDING_RUNS * self._calibration_s
        if not builder.rounding:
            log.info("Weights are rounded to the nearest: there is no time to round them to keep the outputs of their nodes.")

    def _measure_nodes(self) -> None:
        """Measure what each group gains, and what it loses."""
        self._evaluator.between_samples = self._limit.check
        builder, threads, place, sample = self._builder, self._threads, self._inputs.place, self._trials.shortest
        self._begin("measuring what each node gains")
        self._limit.check()
        until = self._limit.share(GAINS_SHARE)
        layouts = layouts_for(self._mode)
        self._gained = kernel_savings(builder, sample, threads=threads, layouts=layouts, until=until, place=place)
        total_ms = place.kernel_times(builder.model, sample, threads).all
        self._utilities = utilities_of(self._gained, total_ms, self._source, self._budget)
        best_case = {key: max(found[key] for found in self._utilities) for key in self._utilities[0]}
        worthwhile = sorted((key for key, utility in best_case.items() if utility > 0), key=lambda key: -best_case[key])
        self._begin("measuring what each node loses")
        until, samples = self._limit.share(NODES_SHARE), None
        ends = [fastest_choice(self._groups, found) for found in self._utilities]
        assert self._found is not None
        if self._found.all_keep_quality(ends):  # then their order hardly matters, nor what lies between them and float
            worthwhile = [one for one in worthwhile if any(end.get(one[0]) is one[1] for end in ends)]
            samples = FEWEST
        self._worthwhile = worthwhile
        self._losses = sensitivities(builder, self._probes, worthwhile, threads, until=until, samples=samples)

    def _follow_paths(self) -> None:
        """Measure candidates along the paths that follow, and leave time to check the choice."""
        assert self._found is not None
        self._begin("measuring candidates")
        paths = [path_of(self._groups, self._losses, found) for found in self._utilities]
        paths.insert(2, front_to_back(self._groups, paths[1]))
        self._paths = paths
        sample_s = max(self._model_s, self._evaluator.seconds_per_sample)
        self._limit.end -= min(2 * sample_s * len(self._selection), CONFIRMING_SHARE * self._mode.seconds)
        self._found.run(paths)

    def _reconstruct(self) -> None:
        """Let candidates that the budget just excludes learn from calibration data; `mode.seconds` is not of that."""
        assert self._found is not None
        self._begin("reconstructing what the budget just excludes")
        left = self._mode.reconstruct_seconds

        def learn(
            quantized: onnx.ModelProto, fitted: onnx.ModelProto, reference: onnx.ModelProto, share: float
        ) -> Reconstruction:
            nonlocal left
            name, inputs, begun = self._source.name, self._inputs, own_time()
            try:
                found = reconstructed(
                    quantized, fitted, reference, inputs.calibration[name], seconds=share * left,
                    bar=lambda part, steps: inputs.progress.bar(f"reconstruct {name}: {part}", steps, "steps"),
                    rate_hz=audio_rate_of(inputs.model.adapter, self._source, inputs.evaluation), seed=inputs.seed,
                    threads=self._threads,
                )  # fmt: skip
            finally:
                self._limit.leave_out(own_time() - begun)
            left = max(left - found.seconds, 1.0)
            self._evaluator.between_samples = lambda: None  # it was worth minutes, and is scored whatever the time
            return found

        beyond = BeyondBudget(self._found, self._trials, self._budget, learn)
        beyond.run(self._paths)
        self._learned = beyond.learned

    def _confirm(self) -> tuple[Candidate, bool, MeasuredLoss]:
        """Store what the choice leaves in float, and check it on as much of the selection part as there is time for."""
        assert self._found is not None
        best, met = best_of(self._found.candidates, self._budget)
        if met:
            self._begin("storing the weights of what stays float")
            self._limit.end += (self._limit.start + self._mode.seconds - self._limit.end) / 2  # half of what was held back
            best = smaller_file(best, self._found, self._trials, self._budget, self._prepared)
        self._evaluator.between_samples = lambda: None
        self._begin("checking the choice, in its layout, on the whole selection part")
        self._limit.end = self._limit.start + self._mode.seconds
        items, evaluator = self._selection, self._evaluator
        sample_s = max(self._model_s, evaluator.seconds_per_sample)  # the machine may be busier than it was
        affordable = int(self._limit.left / (2 * sample_s))  # fp32, and the choice
        if len(items) > self._samples < affordable:
            evaluator = self._inputs.evaluator(self._source.name, self._budget.metric, items[:affordable])
        return confirmed(best, self._found, self._trials, evaluator, self._budget, met=met)

    def _answer(self, checked: tuple[Candidate, bool, MeasuredLoss] | None, stopped: str | None, *, interrupted: bool) -> Found:
        builder, budget, candidates = self._builder, self._budget, self._candidates
        best, met, measured = checked or best_so_far(candidates, budget, self._samples)
        chosen = graph_of(builder, best)
        plan = plan_of_graph(builder, best, chosen)
        why = self._why_stopped(stopped, taken(best, candidates), interrupted=interrupted)
        nodes = rows(builder, self._fixed, best, self._losses, self._gained, self._fine, plan, nodes_with_fixed_scales(chosen))
        report = answer(best, candidates, budget, met=met) | {
            "selection_loss": dataclasses.asdict(measured),
            "node_metric": self._fine,
            "seconds": round(self._limit.spent, 1),
            "stopped_early": why is not None,
            "stopped": why,
            "timed_on": self._inputs.place.words,
            "enough_seconds": self._enough if why is not None and not interrupted else None,
            "method": builder.static.method.name,
            "percentile": builder.static.percentile if builder.static.method is RangeMethod.percentile else None,
            "nodes": nodes,
        }
        plan.kept = [Kept(row["node"], row["reason"]) for row in nodes if row["precision"] == "fp32"]
        name = self._source.name
        silence = [f"{name}: {note_on_silence(builder.silent)}"] if builder.silent else []
        warnings = warnings_of(name, best, met, budget, candidates, why)
        log.info("The search for %s took %.1f s of mode.seconds=%g", name, self._limit.spent, self._mode.seconds)
        return Found(chosen, plan, self._rewritten, report, (*warnings, *silence), self._learned.get(best.label))

    def _why_stopped(self, stopped: str | None, taken: str, *, interrupted: bool) -> str | None:
        """Return what an early end cut off, and what to do; None: the search came to its end."""
        if stopped is None:
            return None
        if interrupted:
            return f"{self._how} after {self._limit.spent:.0f} s while {stopped}: {taken}."
        untried = self._found.untried if self._found is not None else ()
        left = "; ".join([*unmeasured(self._groups, self._gained, self._worthwhile, self._losses), *untried]) or "nothing"
        return (
            f"stopped after mode.seconds={self._mode.seconds:g} while {stopped}: {taken}. Not tried: {left}. To let it finish, "
            f"give mode.seconds={self._enough}."
        )

    @property
    def _enough(self) -> int:
        """A value of `mode.seconds` that is enough."""
        return max(enough_seconds(sum(self._parts.values())), enough_seconds(1.6 * self._mode.seconds))


def _seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
