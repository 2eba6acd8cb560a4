"""A streaming model as its users run it: a sequence step by step, each step with the states that the step before has left.

A sample is a whole sequence, such as an utterance. What it holds of an input says how the input is given to the steps:

- one axis more than the graph declares: the first axis is time, and step t takes what is at t;
- the input that is cut (`model.chunk_input`) with the axes that the graph declares: step t takes `chunk` positions, the first
  of them t * hop; what is left at the end and fills no chunk is left out;
- any other array that fits the graph: it is the same at each step, as a sampling rate is.

States are left out, or are what the sequence starts from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import DataError
from pipeline.models.collected_steps import Collected
from pipeline.models.speech_model import Run
from pipeline.sample import Array, Outputs, Sample

NOISE_STEPS = 16  # of a sequence of noise
Dims = Sequence[int | str | None] | None
"""What a graph declares of an input: sizes, names of sizes that may change, None where there is not even a name."""


@dataclass(frozen=True)
class Cut:
    """How an input is cut into steps.

    Attributes:
        input: its name.
        chunk: positions that a step takes; None: as many as the graph declares.
        hop: positions from one step to the next; None: chunk.
        axis: along which they are; None: the one along which the graph declares a chunk, or no size.
    """

    input: str
    chunk: int | None = None
    hop: int | None = None
    axis: int | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether any setting speaks of it."""
        return (self.chunk, self.hop, self.axis) != (None, None, None)


@dataclass(frozen=True)
class StateLoop:
    """How one graph is run over a sequence.

    Attributes:
        graph: its name.
        declared: each input that a caller gives, and what the graph declares of it.
        states: output -> the input that it becomes.
        initial: input -> its first value, of the states that do not start at zero.
        types: the numpy type of each input.
        cut: how sequences are cut.
    """

    graph: str
    declared: Mapping[str, Dims]
    states: Mapping[str, str]
    types: Mapping[str, np.dtype[np.generic]]
    cut: Cut
    initial: Mapping[str, Array] = field(default_factory=dict)

    def takes(self, sample: Sample) -> bool:
        """Return whether a sample is a sequence, and not the inputs of a single call."""
        if self.cut.is_asked_for:
            return True
        states = set(self.states.values())
        if not states:
            return False
        if not states <= sample.inputs.keys():
            return True
        return any(self._is_stacked(name, array) for name, array in sample.inputs.items() if name not in states)

    def steps(self, sample: Sample) -> int:
        """Return how many steps a sequence has.

        Raises:
            DataError: its inputs do not fit the graph or each other.
        """
        counts: dict[str, int] = {}
        for name, array in sample.inputs.items():
            if name in self.states.values() or name not in self.declared:
                continue
            if self._is_stacked(name, array):
                if name == self.cut.input and self.cut.is_asked_for:
                    raise DataError(
                        f"sample {sample.id!r}, input {name!r}: of shape {list(array.shape)}, one axis more than the graph "
                        "declares, so that its first axis is time and nothing is left to cut: leave out model.chunk, model.hop "
                        "and model.chunk_axis, or that axis."
                    )
                counts[name] = len(array)
            elif self._is_cut(name, array):
                axis, chunk, hop = self._cut_of(sample.id, array)
                counts[name] = 1 + (array.shape[axis] - chunk) // hop
        if not counts:
            return 1
        for name, count in counts.items():
            if not count:
                raise DataError(f"sample {sample.id!r}, input {name!r}: of shape {list(sample.inputs[name].shape)}: no step.")
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"sample {sample.id!r}: its inputs have different numbers of steps: {shown}.")
        return next(iter(counts.values()))

    def first(self, sample: Sample) -> Sample:
        """Return what the graph is given at the first step.

        Raises:
            DataError: the sequence does not fit.
        """
        self.steps(sample)
        return self._call(sample, 0, self.start(sample))

    def shortened(self, sample: Sample, steps: int) -> Sample:
        """Return the beginning of a sequence: so many steps, or all where there are no more."""
        kept = min(steps, self.steps(sample))
        inputs = dict(sample.inputs)
        for name, array in sample.inputs.items():
            if name in self.states.values() or name not in self.declared:
                continue
            if self._is_stacked(name, array):
                inputs[name] = array[:kept]
            elif self._is_cut(name, array):
                axis, chunk, hop = self._cut_of(sample.id, array)
                inputs[name] = _part(array, axis, 0, chunk + (kept - 1) * hop)
        return Sample(sample.id, inputs)

    def of_noise(self, sample: Sample, seed: Sequence[int]) -> Sample:
        """Return a sequence of seeded noise in the place of a single call of noise: states that are noise say nothing.

        The sample as it is where nothing is fed back, or where the graph leaves the size of a step open.
        """
        array, dims = sample.inputs.get(self.cut.input), self.declared.get(self.cut.input)
        if not self.states or array is None or dims is None or array.dtype.kind != "f":
            return sample
        shape = [NOISE_STEPS, *array.shape]
        if self.cut.is_asked_for:
            shape, axis = list(array.shape), self._axis(array, dims, f"sample {sample.id!r}, input {self.cut.input!r}")
            chunk = self.cut.chunk or shape[axis]
            shape[axis] = chunk + (NOISE_STEPS - 1) * (self.cut.hop or chunk)
        elif not all(isinstance(size, int) for size in dims[1:]):
            return sample
        noise = np.random.default_rng(list(seed)).standard_normal(shape).astype(array.dtype)
        kept = {name: value for name, value in sample.inputs.items() if name not in self.states.values()}
        return Sample(sample.id, {**kept, self.cut.input: noise})

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run a sequence; return each output with the steps on a new first axis; see `Collected`."""
        states, collected = self.start(sample), self.collector(sample)
        for number in range(self.steps(sample)):
            outputs = run(self.graph, self._call(sample, number, states))
            states = {name: outputs[output] for output, name in self.states.items()}
            collected.add(outputs)
        return collected.outputs()

    def collector(self, sample: Sample) -> Collected:
        """Return what collects the outputs of a sequence."""
        return Collected(self.states, self.steps(sample))

    def start(self, sample: Sample) -> dict[str, Array]:
        """Return the states that a sequence starts from: its own, those of the settings, or zeros.

        Raises:
            DataError: it has some states and lacks others.
        """
        wanted = list(self.states.values())
        own = {name: sample.inputs[name] for name in wanted if name in sample.inputs}
        if own and len(own) < len(wanted):
            missing = next(name for name in wanted if name not in own)
            raise DataError(
                f"sample {sample.id!r} has the state {next(iter(own))!r} but lacks {missing!r}. Give all states (what the "
                "sequence starts from), or none (then they start at zero, or at model.initial_states)."
            )
        if own:
            return own
        sizes = self._named_sizes(sample)
        return {name: self.initial[name] if name in self.initial else self._zeros(name, sizes) for name in wanted}

    def start_words(self, sample: Sample) -> str:
        """Return what the states of sequences such as this one start from, in words."""
        found = []
        for name, array in self.start(sample).items():
            source = (
                "the sequence's own" if name in sample.inputs else "model.initial_states" if name in self.initial else "zeros"
            )
            found.append(f"{name} {list(array.shape)} from {source}")
        return "; ".join(found)

    def _zeros(self, name: str, sizes: Mapping[str, int]) -> Array:
        dims = self.declared[name]
        if dims is None:
            raise DataError(
                f"model.states: the graph declares no shape for the state {name!r}, so that it cannot start at zero. Give what "
                "it starts from: model.initial_states=<npz>, its arrays named as the inputs."
            )
        return np.zeros([size if isinstance(size, int) else sizes.get(size or "", 1) for size in dims], self.types[name])

    def _named_sizes(self, sample: Sample) -> dict[str, int]:
        """Return the sizes that the inputs of a step give to the names that the graph declares."""
        found: dict[str, int] = {}
        for name, array in self._step(sample, 0).items():
            dims = self.declared.get(name)
            if dims is not None and len(dims) == array.ndim:
                found |= {size: found_size for size, found_size in zip(dims, array.shape, strict=True) if isinstance(size, str)}
        return found

    def _call(self, sample: Sample, number: int, states: Mapping[str, Array]) -> Sample:
        """Return what the graph is given at a step."""
        return Sample(f"{sample.id}, step {number}", {**self._step(sample, number), **states})

    def _step(self, sample: Sample, number: int) -> dict[str, Array]:
        """Return what a step takes, without the states."""
        found: dict[str, Array] = {}
        for name, array in sample.inputs.items():
            if name in self.states.values():
                continue
            if name in self.declared and self._is_stacked(name, array):
                found[name] = array[number]
            elif self._is_cut(name, array):
                axis, chunk, hop = self._cut_of(sample.id, array)
                found[name] = np.ascontiguousarray(_part(array, axis, number * hop, chunk))
            else:
                found[name] = array
        return found

    def _is_cut(self, name: str, array: Array) -> bool:
        dims = self.declared.get(name)
        return name == self.cut.input and (dims is None or array.ndim == len(dims))  # else the check of shapes complains

    def _is_stacked(self, name: str, array: Array) -> bool:
        dims = self.declared.get(name)
        return dims is not None and array.ndim == len(dims) + 1

    def _cut_of(self, sample: str, array: Array) -> tuple[int, int, int]:
        """Return axis, chunk and hop of a sequence."""
        dims, where = self.declared[self.cut.input], f"sample {sample!r}, input {self.cut.input!r}"
        axis = self._axis(array, dims, where)
        length, size = array.shape[axis], None if dims is None or axis >= len(dims) else dims[axis]
        chunk = self.cut.chunk or (size if isinstance(size, int) else None)
        if chunk is None:
            raise DataError(
                f"{where}: of shape {list(array.shape)}, and how much of it a step takes is not known, as the graph leaves the "
                f"size of axis {axis} open. Set model.chunk (and model.hop, where steps overlap), or give arrays with one axis "
                "more, whose first is time."
            )
        if isinstance(size, int) and chunk != size:
            raise DataError(f"model.chunk: {chunk}, but the graph takes {size} along axis {axis} of {self.cut.input!r}.")
        if length < chunk:
            raise DataError(f"{where}: of shape {list(array.shape)}, shorter along axis {axis} than a step takes ({chunk}).")
        return axis, chunk, self.cut.hop or chunk

    def _axis(self, array: Array, dims: Dims, where: str) -> int:
        if self.cut.axis is not None:
            if not -array.ndim <= self.cut.axis < array.ndim:
                raise DataError(f"model.chunk_axis: {self.cut.axis}, but {where} is of shape {list(array.shape)}.")
            return self.cut.axis % array.ndim
        known = dims if dims is not None and len(dims) == array.ndim else [None] * array.ndim
        longer = [
            axis
            for axis, (size, found) in enumerate(zip(known, array.shape, strict=True))
            if (found > size if isinstance(size, int) else found > 1)
        ]
        if len(longer) == 1:
            return longer[0]
        fixed = [axis for axis, size in enumerate(known) if isinstance(size, int) and size == self.cut.chunk]
        if not longer and (len(fixed) == 1 or array.ndim == 1):
            return fixed[0] if fixed else 0
        if not longer and all(isinstance(size, int) for size in known):
            return array.ndim - 1  # one step, whichever axis it is
        raise DataError(f"{where}: of shape {list(array.shape)}: which axis is time is not clear. Set model.chunk_axis.")


def _part(array: Array, axis: int, start: int, length: int) -> Array:
    return array[(slice(None),) * axis + (slice(start, start + length),)]
