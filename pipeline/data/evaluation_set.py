"""The evaluation set of a run, split into a part that choices are made on and a part that is reported.

A model that is the best of many on some samples is better on them than on others: its figures there are too good. So
choices (candidates of a search, range methods, rewrites) see the selection part only, and the report the report part.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, evaluation_samples
from pipeline.errors import StageError
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import traced
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample

TRACED_SAMPLES = 8  # that further graphs of a model are run on, for a probe and for timing
FEW_SAMPLES = 16  # fewer in a part are too few


class EvaluationPart(Mapping[str, list[Sample]]):
    """Some samples of an evaluation set; and graph name -> what the graph is given when the model runs on them.

    Attributes:
        samples: those of the first graph of the model, with what is known about them.
    """

    def __init__(self, samples: Sequence[EvaluationSample], model: LoadedModel, seed: int) -> None:
        """Run nothing yet."""
        self.samples = list(samples)
        self._model, self._seed = model, seed
        self._traced: dict[str, list[Sample]] = {}

    @property
    def ids(self) -> list[str]:
        """The ids of the samples."""
        return [item.sample.id for item in self.samples]

    def __getitem__(self, graph: str) -> list[Sample]:
        """Return what a graph is given; a further graph on a few of the samples."""
        samples = [item.sample for item in self.samples]
        if graph == self._model.adapter.entry:
            return samples
        if graph not in self._traced:
            model = self._model
            self._traced[graph] = traced(model.originals, model.adapter.infer, samples[:TRACED_SAMPLES], self._seed, graph)
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
        """
        samples = self[graph]
        if not samples:
            raise StageError(f"{graph} is not run on the first samples of the evaluation set, so it cannot be checked.")
        return sorted(samples, key=lambda sample: sample.size)[len(samples) // 2]

    def probes(self, graph: str) -> list[Sample]:
        """Return the sample of median size, and two others."""
        return [self.probe(graph), *self[graph][:2]]


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
            whole = EvaluationPart(items, self._model, self._seed)
            return whole, whole
        selection, report = split(items, self._seed, exchange=self._config.exchange_parts)
        if len(report) < FEW_SAMPLES and (self._config.path or self._model.adapter.evaluation_path) is not None:
            self._run_log.warn(
                f"evaluation.path: {len(report)} samples are left to report on, after {len(selection)} of {len(items)} were "
                f"set aside for choices. Fewer than {FEW_SAMPLES} are too few for reliable figures; give more samples."
            )
        parts = (EvaluationPart(part, self._model, self._seed) for part in (selection, report))
        return next(parts), next(parts)


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
