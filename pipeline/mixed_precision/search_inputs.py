"""What a search needs of the run: the model and its data."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.settings import EvaluationConfig
from pipeline.data.calibration_set import CalibrationSet
from pipeline.data.datasets import EvaluationSample
from pipeline.data.evaluation_set import EvaluationSet
from pipeline.errors import ConfigError
from pipeline.evaluate.loss import LossEvaluator
from pipeline.graph.shorten_samples import cropped
from pipeline.measure.timing_place import HERE, Place
from pipeline.mixed_precision.candidate_builder import Measured
from pipeline.models.loaded_model import LoadedModel
from pipeline.record.progress_bars import ProgressBars
from pipeline.sample import Sample


@dataclass(frozen=True)
class SearchInputs:
    """What a search needs of the run.

    Attributes:
        model: the original.
        calibration: what its graphs are calibrated on, and what single nodes are measured on.
        evaluation_set: its selection part is what candidates are measured on.
        evaluation: what quality means.
        seed: of noise.
        progress: where to show what is done now.
        place: where speed is measured.
    """

    model: LoadedModel
    calibration: CalibrationSet
    evaluation_set: EvaluationSet
    evaluation: EvaluationConfig
    seed: int
    progress: ProgressBars
    place: Place = HERE

    @property
    def selection(self) -> list[EvaluationSample]:
        """The samples that candidates are measured on.

        Raises:
            ConfigError: there is a single one, which the report would then be of as well.
        """
        if not self.evaluation_set.is_split:
            raise ConfigError(
                "evaluation.path: one sample, but mode=auto chooses on some samples and reports on others: give two at least."
            )
        return self.evaluation_set.selection.samples

    def evaluator(self, graph: str, metric: str, items: Sequence[EvaluationSample]) -> LossEvaluator:
        """Return what scores changes of a graph."""
        return LossEvaluator(self.model, graph, items, self.evaluation, metric, seed=self.seed)

    def short_utterances(self, wanted: int, share: float, least: int) -> list[EvaluationSample]:
        """Return parts of the shortest calibration samples, for what is measured many times.

        Args:
            wanted: how many; of twice as many, the longer ones.
            share: what is kept of a sample's length: of one in the middle, or of a sequence its beginning.
            least: positions, or steps, that are kept at least.
        """
        chosen = sorted(self.calibration.entry, key=lambda sample: sample.size)[: 2 * wanted][-wanted:]
        adapter, steps = self.model.adapter, [self.model.adapter.steps(sample) for sample in chosen]
        if all(count is None for count in steps):
            parts = cropped(self.model.entry.model, chosen, share, least, self.model.threads)
        else:
            lengths = [max(round(share * (count or 1)), least) for count in steps]
            parts = [adapter.shortened(sample, length) for sample, length in zip(chosen, lengths, strict=True)]
        return [EvaluationSample(part) for part in parts]

    def statistics_of(self, samples: Sequence[Sample], without: Collection[str]) -> Measured:
        """Return the function that collects statistics of a graph on samples, of all but some tensors."""
        return lambda model: cached_statistics(model, samples, without=without, threads=self.model.threads, seed=self.seed)
