"""The calibration set of a run: what each graph of the model is calibrated on, read when it is first asked for."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.cache.kinds import CHECKED
from pipeline.cache.recall import remembered
from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import CalibrationConfig
from pipeline.data.datasets import LOOKED_AHEAD, calibration_samples, refuse_or_skip
from pipeline.data.evaluation_set import ALL_GOOD
from pipeline.errors import DataError
from pipeline.graph.session import RunError
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import traced, traced_steps
from pipeline.record.run_log import RunLog
from pipeline.run_ahead import in_order
from pipeline.sample import Sample, digests_of, samples_of

CALLS_KEPT = 1024  # of all sequences of a streaming model together, at most
FEWEST_STEPS, MOST_STEPS = 4, 64  # of one sequence
BYTES_KEPT = 256 << 20
START = 0.25  # of the steps that are kept: the first ones, while states fill; the others are spread over the sequence


class CalibrationSet(Mapping[str, list[Sample]]):
    """Graph name -> its calibration samples.

    The first graph of the model gets the samples of the data set; a further graph gets what the model makes of them on the
    way to it. Random inputs have the shapes of each graph's own inputs. Of a sequence of a streaming model, the graph gets
    steps from its beginning, its middle and its end, with the states that fp32 has then.
    """

    def __init__(self, model: LoadedModel, config: CalibrationConfig, seed: int, run_log: RunLog) -> None:
        """Read nothing yet."""
        self._model, self._config, self._seed, self._run_log = model, config, seed, run_log
        self._samples: dict[str, list[Sample]] = {}
        self._sequences: list[Sample] = []

    def __getitem__(self, graph: str) -> list[Sample]:
        """Return the samples of a graph.

        Raises:
            ConfigError: the data is not named.
            DataError: it cannot be used.
        """
        if graph not in self._samples:
            self._samples[graph] = self._read(graph)
        return self._samples[graph]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the graphs."""
        return iter(self._model)

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self._model)

    @property
    def entry(self) -> list[Sample]:
        """The samples of the first graph of the model; of a streaming model, its whole sequences."""
        samples = self[self._model.adapter.entry]
        return self._sequences or samples

    @property
    def description(self) -> str | None:
        """What was calibrated on, such as `32 real samples`; None where no sample was asked for."""
        if not self._samples:
            return None
        used = self._samples.get(self._model.adapter.entry) or next(iter(self._samples.values()))
        if self._sequences:
            return f"{len(used)} steps of {samples_of(len(self._sequences), self._config.kind.name)}"
        return samples_of(len(used), self._config.kind.name)

    def _read(self, graph: str) -> list[Sample]:
        model, entry = self._model, self._model.adapter.entry
        noise = self._config.kind is CalibrationKind.random
        if noise or graph == entry:
            source = model[graph] if noise else model.entry
            samples = calibration_samples(model.adapter, source, self._config, self._seed, self._run_log)
            kind = self._config.kind
            good = samples

            def all_run() -> bool:
                nonlocal good
                good = self._that_run(graph, samples)
                return len(good) == len(samples)

            remembered(CHECKED, lambda: (model.identity, graph, kind, self._seed, digests_of(samples)), ALL_GOOD, all_run)
            steps = [model.adapter.steps(sample) for sample in good]
            if graph != entry or all(count is None for count in steps):
                return good
            self._sequences = good
            return self._calls([count or 1 for count in steps])
        return traced(model.originals, model.adapter.infer, self.entry, self._seed, graph)

    def _calls(self, steps: Sequence[int]) -> list[Sample]:
        """Return what the graph is given at steps of all sequences: so many that they fit into memory."""
        adapter, sequences = self._model.adapter, self._sequences
        size = max(sum(array.nbytes for array in adapter.first_call(one).inputs.values()) for one in sequences)
        affordable = min(CALLS_KEPT, BYTES_KEPT // max(size, 1)) // len(sequences)
        kept = min(max(affordable, FEWEST_STEPS), MOST_STEPS)
        chosen = {number: (one, _chosen(count, kept)) for number, (one, count) in enumerate(zip(sequences, steps, strict=True))}
        return traced_steps(self._model.originals, adapter.infer, chosen, self._seed, adapter.entry)

    def _that_run(self, graph: str, samples: list[Sample]) -> list[Sample]:
        """Return the samples that the original graph runs on: what it fails on says nothing about quantization.

        Raises:
            DataError: there is none, or a bad one is refused.
        """
        good: list[Sample] = []
        key = "calibration.path"

        def error_of(number: int) -> RunError | None:
            return self._error_of(graph, samples[number], [self._seed, number])

        with in_order(error_of, range(len(samples)), threads=self._model.threads) as errors:
            for number, (sample, error) in enumerate(zip(samples, errors, strict=True)):
                if error is None:
                    good.append(sample)
                    continue
                reason = f"sample {sample.id!r}: the original model itself does not run on it: {error.reason}."
                if self._config.kind is CalibrationKind.random:
                    raise DataError(
                        f"calibration=random: noise does not suit {graph}: {reason} Give real samples: calibration=arrays "
                        "calibration.path=<npz>."
                    ) from error
                further = samples[number + 1 : number + 1 + LOOKED_AHEAD]
                others = good or any(self._error_of(graph, other, [self._seed]) is None for other in further)
                refuse_or_skip(key, self._config.on_bad_sample, self._run_log, sample.id, reason, others_are_good=bool(others))
                self._run_log.warn(f"{key}: samples that the original model does not run on were skipped; see `skipped`.")
        if not good:
            raise DataError(f"{key}: the original model runs on none of the {len(samples)} samples; see `skipped`.")
        return good

    def _error_of(self, graph: str, sample: Sample, seed: list[int]) -> RunError | None:
        """Run the original on a sample; return what ONNX Runtime raises."""
        run, adapter = self._model.originals.runner(seed), self._model.adapter
        try:
            if graph == adapter.entry and adapter.steps(sample) is not None:
                adapter.infer(sample, run)
            else:
                run(graph, sample)
        except RunError as error:
            return error
        return None


def _chosen(count: int, kept: int) -> list[int]:
    """Return which of so many steps are kept: the first ones, and others evenly spread up to the last."""
    if count <= kept:
        return list(range(count))
    first = max(1, round(START * kept))
    return [*range(first), *map(int, np.linspace(first, count - 1, kept - first).round())]
