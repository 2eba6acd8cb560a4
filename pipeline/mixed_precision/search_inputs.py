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
    """

    model: LoadedModel
    calibration: CalibrationSet
    evaluation_set: EvaluationSet
    evaluation: EvaluationConfig
    seed: int
    progress: ProgressBars

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

    def statistics_of(self, samples: Sequence[Sample], without: Collection[str]) -> Measured:
        """Return the function that collects statistics of a graph on samples, of all but some tensors."""
        return lambda model: cached_statistics(model, samples, without=without, threads=self.model.threads, seed=self.seed)
