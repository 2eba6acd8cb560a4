"""The evaluation set of a run, split into a part that choices are made on and a part that is reported.

A model that is the best of many on some samples is better on them than on others: its figures there are too good. So
choices (candidates of a search, range methods, rewrites) see the selection part only, and the report the report part.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import CHECKED
from pipeline.cache.recall import Form, remembered
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, evaluation_samples, refuse_or_skip
from pipeline.errors import DataError, StageError
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.loop_settings import advice_on_states
from pipeline.models.model_sessions import traced, traced_steps
from pipeline.models.onnx_file import OnnxFile
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample, digests_of

TRACED_SAMPLES = 8  # that further graphs of a model are run on, for a probe and for timing
FEW_SAMPLES = 16  # fewer in a part are too few

ALL_GOOD = Form[bool](lambda good: Entry() if good else None, lambda _: True)
"""That the original runs on all samples of a set; where it does not, what is said of some is said again."""

OnBad = Callable[[str, str], None]
"""(id of a sample, why it cannot be used) -> what the settings say of such samples."""


class EvaluationPart(Mapping[str, list[Sample]]):
    """Some samples of an evaluation set; and graph name -> what the graph is given when the model runs on them.

    The original runs on each sample before anything else does: one that it fails on is bad, whatever is made of the model.
    Outputs are kept (`LoadedModel.originals`), so that those who compare with them need not run it a second time.
    """

    def __init__(self, samples: Sequence[EvaluationSample], model: LoadedModel, seed: int, on_bad: OnBad) -> None:
        """Run nothing yet.

        Args:
            samples: those of the first graph of the model, with what is known about them.
            model: the original.
            seed: of the noise.
            on_bad: told of a sample that the original does not run on; raises where such samples are refused.
        """
        self._given, self._model, self._seed, self._on_bad = list(samples), model, seed, on_bad
        self._good: list[EvaluationSample] = []
        self._checked = 0  # of the samples, in their order
        self._runs: dict[str, bool] = {}  # id -> whether the original runs on it
        self._traced: dict[str, list[Sample]] = {}

    @property
    def samples(self) -> list[EvaluationSample]:
        """All samples that the original runs on.

        Raises:
            DataError: there is none, or a bad one is refused.
        """
        if self._checked < len(self._given) and remembered(CHECKED, self._depends_on, ALL_GOOD, self._are_all_good):
            self._good, self._checked = list(self._given), len(self._given)
            self._runs = {item.sample.id: True for item in self._given}
        return self.first(len(self._given))

    def _depends_on(self) -> tuple[object, ...]:
        return self._model.identity, self._seed, digests_of(item.sample for item in self._given)

    def _are_all_good(self) -> bool:
        return len(self.first(len(self._given))) == len(self._given)

    @property
    def ids(self) -> list[str]:
        """The ids of the samples, without those that the original is known not to run on."""
        return [item.sample.id for item in self._given if self._runs.get(item.sample.id, True)]

    def first(self, count: int) -> list[EvaluationSample]:
        """Return so many of the samples that the original runs on, the first ones; all where there are no more."""
        while len(self._good) < count and self._checked < len(self._given):
            item = self._given[self._checked]
            if self._is_good(item):
                self._good.append(item)
            self._checked += 1
        return self._good[:count] or self._none_left()

    def __getitem__(self, graph: str) -> list[Sample]:
        """Return what a graph is given; a further graph on a few of the samples.

        Of a few sequences of a streaming model: a step from the middle of each, which is steady by then.
        """
        if graph == self._model.adapter.entry:
            if not any(self._is_sequence(item.sample) for item in self._given):
                return [item.sample for item in self.samples]
            if graph not in self._traced:
                few = [item.sample for item in self.first(TRACED_SAMPLES)]
                self._traced[graph] = self._middles(few)
            return self._traced[graph]
        if graph not in self._traced:
            model, samples = self._model, [item.sample for item in self.first(TRACED_SAMPLES)]
            self._traced[graph] = traced(model.originals, model.adapter.infer, samples, self._seed, graph)
        return self._traced[graph]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the graphs."""
        return iter(self._model)

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self._model)

    def probe(self, graph: str) -> Sample:
        """Return the sample of median size that a graph is given: what it is profiled and checked on.

        Raises:
            StageError: the graph is not run on the first samples.
            DataError: the original runs on no sample, or a bad one is refused.
        """
        if graph == self._model.adapter.entry:
            ordered = sorted(self._given, key=lambda item: item.sample.size)
            middle = len(ordered) // 2
            nearest = sorted(range(len(ordered)), key=lambda place: abs(place - middle))
            found = next((ordered[place] for place in nearest if self._is_good(ordered[place])), None)
            sample = (found or self._none_left()[0]).sample
            return self._middles([sample])[0] if self._is_sequence(sample) else sample
        samples = self[graph]
        if not samples:
            raise StageError(f"{graph} is not run on the first samples of the evaluation set, so it cannot be checked.")
        return sorted(samples, key=lambda sample: sample.size)[len(samples) // 2]

    def probes(self, graph: str) -> list[Sample]:
        """Return the sample of median size, and two others."""
        if graph == self._model.adapter.entry:
            others = [item.sample for item in self.first(2)]
            if any(map(self._is_sequence, others)):
                others = [self._model.adapter.first_call(others[0]), *self._middles(others[1:])]
            return [self.probe(graph), *others]
        return [self.probe(graph), *self[graph][:2]]

    def _is_sequence(self, sample: Sample) -> bool:
        return self._model.adapter.steps(sample) is not None

    def _middles(self, sequences: Sequence[Sample]) -> list[Sample]:
        """Return what the graph is given in the middle of each sequence."""
        adapter = self._model.adapter
        wanted = {number: (one, [(adapter.steps(one) or 1) // 2]) for number, one in enumerate(sequences)}
        return traced_steps(self._model.originals, adapter.infer, wanted, self._seed, adapter.entry)

    def _is_good(self, item: EvaluationSample) -> bool:
        """Run the original on a sample, once, on the noise that it gets in an evaluation."""
        name = item.sample.id
        if name not in self._runs:
            fault = self._model.fault_of(item.sample, [self._seed, len(self._good)])
            if fault is not None:
                self._on_bad(name, fault)
            self._runs[name] = fault is None
        return self._runs[name]

    def _none_left(self) -> list[EvaluationSample]:
        raise DataError(f"evaluation.path: the original model runs on none of the {len(self._given)} samples; see `skipped`.")


class EvaluationSet:
    """The samples that quality and speed are measured on, read once and split once."""

    def __init__(self, model: LoadedModel, config: EvaluationConfig, seed: int, run_log: RunLog) -> None:
        """Read nothing yet."""
        self._model, self._config, self._seed, self._run_log = model, config, seed, run_log

    @property
    def selection(self) -> EvaluationPart:
        """What choices are made on."""
        return self._parts[0]

    @property
    def report(self) -> EvaluationPart:
        """What the evaluate and benchmark stages see."""
        return self._parts[1]

    @property
    def ids(self) -> dict[str, list[str]] | None:
        """Which sample is in which part: the report's `samples`; None where the set was not read."""
        if "_parts" not in self.__dict__:
            return None
        return {"selection": self.selection.ids, "report": self.report.ids}

    @cached_property
    def is_split(self) -> bool:
        """Whether both parts hold samples of their own; a single sample cannot be split."""
        return self.selection is not self.report

    @cached_property
    def _parts(self) -> tuple[EvaluationPart, EvaluationPart]:
        items = evaluation_samples(self._model.adapter, self._model.entry, self._config, self._seed, self._run_log)
        if len(items) == 1:
            self._run_log.warn(
                f"evaluation.path: one sample ({items[0].sample.id!r}) cannot be split, so checks and report use the same one. "
                "Give more samples."
            )
            whole = EvaluationPart(items, self._model, self._seed, self._on_bad)
            return whole, whole
        selection, report = split(items, self._seed, exchange=self._config.exchange_parts)
        if len(report) < FEW_SAMPLES and (self._config.path or self._model.adapter.evaluation_path) is not None:
            self._run_log.warn(
                f"evaluation.path: {len(report)} samples are left to report on, after {len(selection)} of {len(items)} were "
                f"set aside for choices. Fewer than {FEW_SAMPLES} are too few for reliable figures; give more samples."
            )
        parts = (EvaluationPart(part, self._model, self._seed, self._on_bad) for part in (selection, report))
        return next(parts), next(parts)

    def _on_bad(self, sample: str, reason: str) -> None:
        if self._config.path is None and self._model.adapter.evaluation_path is None:
            adapter, source = self._model.adapter, self._model.entry
            streaming = advice_on_states(source, adapter.fed_back(source.model.graph)) if isinstance(adapter, OnnxFile) else []
            raise DataError(
                f"evaluation.path: not set, and the seeded noise in the place of data does not suit the model: {reason} Give "
                f"real samples: evaluation.path=<npz>.{''.join(f' To {line}.' for line in streaming[1:])}"
            )
        refuse_or_skip("evaluation.path", self._config.on_bad_sample, self._run_log, sample, reason)
        self._run_log.warn("evaluation.path: samples that the original model does not run on were skipped; see `skipped`.")


def split(
    items: Sequence[EvaluationSample], seed: int, *, exchange: bool = False
) -> tuple[list[EvaluationSample], list[EvaluationSample]]:
    """Return the selection half and the report half of a set, each in the order of the set.

    Which half a sample is in follows from a hash of the seed and its id, so that two modes on the same data agree. Of an
    odd number, the report gets one more.

    Args:
        items: the samples, two at least.
        seed: of the run.
        exchange: give the report what selection would get, and the reverse.
    """

    def place(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{items[index].sample.id}".encode()).digest()

    chosen = set(sorted(range(len(items)), key=place)[: len(items) // 2])
    halves = (
        [item for index, item in enumerate(items) if index in chosen],
        [item for index, item in enumerate(items) if index not in chosen],
    )
    return (halves[1], halves[0]) if exchange else halves
