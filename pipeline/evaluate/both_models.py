"""A model as it was and as it has become, run on the same samples and the same noise."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.errors import DataError, StageError
from pipeline.evaluate.decisions import outputs_beside
from pipeline.evaluate.output_scores import Pair
from pipeline.evaluate.sample_scores import length_change
from pipeline.graph.session import RunError
from pipeline.metrics.tensor_metrics import broken_values
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.quantize.artifact import Artifact
from pipeline.sample import Outputs, Sample


@dataclass(frozen=True)
class Ran:
    """What both models have given for one sample.

    Attributes:
        baseline: fp32's outputs.
        quantized: those of the other.
        pairs: those of each inference of a quantized graph, beside its original's.
        calls: the inferences of the original graphs that were quantized.
        length_change: of the longest or shortest output, relative to fp32's.
    """

    baseline: Outputs
    quantized: Outputs
    pairs: list[Pair]
    calls: list[Call]
    length_change: float


@dataclass(frozen=True)
class RanSteps:
    """What both models have given for a sequence.

    Attributes:
        baseline: fp32's outputs.
        quantized: those of the other.
        before: of them, fp32's of the graph whose states go from step to step, by the names that the report has.
        after: those of its quantized form.
        alone: those of its quantized form that was given fp32's states at each step.
        further: of each inference of another quantized graph, beside its original's.
    """

    baseline: Outputs
    quantized: Outputs
    before: Outputs
    after: Outputs
    alone: Outputs
    further: list[Pair]


class BothModels:
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

    def run_steps(self, sample: Sample, seed: list[int]) -> RanSteps:
        """Return what all steps of a sequence have given.

        Args:
            sample: the sequence.
            seed: of the noise.
        """
        before, after, collected = self._before.runner(seed), self._after.runner(seed), self._model.collector(sample)
        further: list[Pair] = []

        def both(graph: str, call: Sample) -> Outputs:
            outputs = before(graph, call)
            if graph == self._model.entry:
                collected.add(self._changed(lambda: after(graph, call)))
            elif graph in self._artifacts:
                further.append((self._prefix(graph), outputs, self._changed(lambda: after(graph, call))))
            return outputs

        baseline = self._model.infer(sample, both)
        quantized = self._changed(lambda: self._model.infer(sample, self._after.runner(seed)))
        self.length_change = max(self.length_change, length_change(baseline, quantized))
        own, rerun = quantized, self._after.runner(seed)
        quantized = self._changed(lambda: outputs_beside(self._model, sample, rerun, baseline, own))
        original = Call(self._model.entry, sample, baseline)
        self._check_usable(Call(self._model.entry, sample, quantized), original)
        self._note_nan(original)
        alone, prefix = collected.outputs(), self._prefix(self._model.entry)
        before_of, after_of = ({prefix + name: outputs[name] for name in alone} for outputs in (baseline, quantized))
        return RanSteps(baseline, quantized, before_of, after_of, {prefix + name: one for name, one in alone.items()}, further)

    def transcribed(self, number: int, sample: Sample) -> tuple[Outputs, Outputs]:
        """Return the outputs before and after, and compare nothing."""
        before = self._model.infer(sample, self._before.runner([number]))
        return before, self._changed(lambda: self._model.infer(sample, self._after.runner([number])))

    def note(self, ran: Ran) -> None:
        """Note what a sample tells of the whole: lengths, and outputs without a number."""
        self.length_change = max(self.length_change, ran.length_change)
        for call in ran.calls:
            self._note_nan(call)

    def run(self, sample: Sample, seed: list[int], changed: Sample) -> Ran:
        """Return the outputs before and after, and those of each inference of a quantized graph beside its original's.

        It changes nothing here, so that several samples may run at once.

        Args:
            sample: what the original is given.
            seed: of the noise.
            changed: what the quantized model is given: the same, but for states of its own.
        """
        calls: tuple[list[Call], list[Call]] = ([], [])
        baseline = self._model.infer(sample, self._before.runner(seed, calls[0]))
        quantized = self._changed(lambda: self._model.infer(changed, self._after.runner(seed, calls[1])))
        change = length_change(baseline, quantized)
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
        quantized = self._changed(lambda: outputs_beside(self._model, changed, rerun, baseline, quantized))
        return Ran(baseline, quantized, pairs, [call for call in calls[0] if call.graph in self._artifacts], change)

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
