"""The calibration set of a run: what each graph of the model is calibrated on, read when it is first asked for."""

from collections.abc import Iterator, Mapping

from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import CalibrationConfig
from pipeline.data.datasets import LOOKED_AHEAD, calibration_samples, refuse_or_skip
from pipeline.errors import DataError
from pipeline.graph.session import RunError
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import traced
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample


class CalibrationSet(Mapping[str, list[Sample]]):
    """Graph name -> its calibration samples.

    The first graph of the model gets the samples of the data set; a further graph gets what the model makes of them on the
    way to it. Random inputs have the shapes of each graph's own inputs.
    """

    def __init__(self, model: LoadedModel, config: CalibrationConfig, seed: int, run_log: RunLog) -> None:
        """Read nothing yet."""
        self._model, self._config, self._seed, self._run_log = model, config, seed, run_log
        self._samples: dict[str, list[Sample]] = {}

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
        """The samples of the first graph of the model."""
        return self[self._model.adapter.entry]

    @property
    def description(self) -> str | None:
        """What was calibrated on, such as `32 real samples`; None where no sample was asked for."""
        if not self._samples:
            return None
        used = self._samples.get(self._model.adapter.entry) or next(iter(self._samples.values()))
        return f"{len(used)} {self._config.kind.name} samples"

    def _read(self, graph: str) -> list[Sample]:
        model, entry = self._model, self._model.adapter.entry
        noise = self._config.kind is CalibrationKind.random
        if noise or graph == entry:
            source = model[graph] if noise else model.entry
            samples = calibration_samples(model.adapter, source, self._config, self._seed, self._run_log)
            return self._that_run(graph, samples)
        return traced(model.originals, model.adapter.infer, self.entry, self._seed, graph)

    def _that_run(self, graph: str, samples: list[Sample]) -> list[Sample]:
        """Return the samples that the original graph runs on: what it fails on says nothing about quantization.

        Raises:
            DataError: there is none, or a bad one is refused.
        """
        good: list[Sample] = []
        key = "calibration.path"
        for number, sample in enumerate(samples):
            try:
                self._model.originals.runner([self._seed, number])(graph, sample)
            except RunError as error:
                reason = f"sample {sample.id!r}: the original model itself does not run on it: {error.reason}."
                if self._config.kind is CalibrationKind.random:
                    raise DataError(
                        f"calibration=random: noise does not suit {graph}: {reason} Give real samples: calibration=arrays "
                        "calibration.path=<npz>."
                    ) from error
                others = good or any(self._runs(graph, other) for other in samples[number + 1 : number + 1 + LOOKED_AHEAD])
                refuse_or_skip(key, self._config.on_bad_sample, self._run_log, sample.id, reason, others_are_good=bool(others))
                self._run_log.warn(f"{key}: samples that the original model does not run on were skipped; see `skipped`.")
                continue
            good.append(sample)
        if not good:
            raise DataError(f"{key}: the original model runs on none of the {len(samples)} samples; see `skipped`.")
        return good

    def _runs(self, graph: str, sample: Sample) -> bool:
        try:
            self._model.originals.runner([self._seed])(graph, sample)
        except RunError:
            return False
        return True
