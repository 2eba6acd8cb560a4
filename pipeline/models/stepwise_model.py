"""What models have in common that hear a sequence step by step, each step with the states that the one before has left."""

from collections.abc import Sequence

from pipeline.models.collected_steps import Collected
from pipeline.models.model_files import ModelFiles
from pipeline.models.speech_model import Run
from pipeline.models.state_loop import StateLoop
from pipeline.sample import Outputs, Sample


class StepwiseModel(ModelFiles):
    """A model of one graph that may be run over sequences; how is known once `with_graphs` has read the graph."""

    _loop: StateLoop | None = None
    _step_seconds: float | None = None

    def steps(self, sample: Sample) -> int | None:
        """Return how many steps a sample has, where it is a sequence; None where it is what one call takes."""
        return self._loop.steps(sample) if self._loop is not None and self._loop.takes(sample) else None

    def first_call(self, sample: Sample) -> Sample:
        """Return what the graph is given first: at the first step of a sequence, or all of the sample."""
        return self._loop.first(sample) if self._loop is not None and self._loop.takes(sample) else sample

    def of_noise(self, sample: Sample, seed: Sequence[int]) -> Sample:
        """Return a sequence of noise for a call of noise, where states go from step to step."""
        return sample if self._loop is None else self._loop.of_noise(sample, seed)

    def collector(self, sample: Sample) -> Collected:
        """Return what collects the outputs of a sequence."""
        assert self._loop is not None
        return self._loop.collector(sample)

    def start_words(self, sample: Sample) -> str:
        """Return what the states of a sequence start from, in words; nothing where nothing is fed back."""
        return "" if self._loop is None else self._loop.start_words(sample)

    def shortened(self, sample: Sample, steps: int) -> Sample:
        """Return the beginning of a sequence: so many steps at most."""
        assert self._loop is not None
        return self._loop.shortened(sample, steps)

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the one graph: once, or over all steps of a sequence."""
        if self._loop is not None and self._loop.takes(sample):
            return self._loop.infer(sample, run)
        return run(self.entry, sample)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return how much audio a step takes, where that is known."""
        del sample, outputs
        return self._step_seconds
