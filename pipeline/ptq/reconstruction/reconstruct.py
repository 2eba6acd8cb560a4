"""Block reconstruction: the numbers of a quantized graph, chosen so that its blocks, then all of it, give what fp32 gives.

Nagel et al. 2020, "Up or Down? Adaptive Rounding" (arXiv:2004.10568) choose the rounding of weights by what a layer puts out,
Li et al. 2021, "BRECQ" (arXiv:2102.05426) by what a block puts out, in order, each on the quantized outputs before it. Here the
scales and zero points of activations, the scales of weights and biases are learned as well, and the finished graph of Q/DQ
pairs is what is taught: only its constants change. Last, from some block on, all of it is taught at once to give the output
that the float graph gives (distillation); where that is audio, its log-mel.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import onnx
import torch

from pipeline.ptq.reconstruction.crops import HELD_PIECES, TRAIN_PIECES, crops_of, following, held_back, pieces_of_inputs
from pipeline.ptq.reconstruction.fake_quantization import learned_of, write_back
from pipeline.ptq.reconstruction.parts import Part, parts_of
from pipeline.ptq.reconstruction.spectral_loss import LEAST_SAMPLES
from pipeline.ptq.reconstruction.torch_graph import TorchGraph
from pipeline.ptq.reconstruction.torch_operators import unknown_operators
from pipeline.ptq.reconstruction.training import Crop, Teacher
from pipeline.record.results import ReconstructedPart, Reconstruction
from pipeline.sample import Sample

BLOCK_STEPS, WHOLE_STEPS = 200, 1600
BLOCKS_SHARE = 0.4  # of the time that is left, at most

Data = tuple[list[Crop], list[Crop]]
"""Pieces to learn from, and those that are held back."""

Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""(what is done, steps) -> a block that gives what is to be called after each step."""


@dataclass
class Clock:
    """A point in time after which no step is begun, on the clock of `time.monotonic`."""

    end: float

    @property
    def left(self) -> float:
        """Seconds until then; 0 behind it."""
        return max(self.end - time.monotonic(), 0.0)

    def share(self, share: float) -> "Clock":
        """Return the point at which a share of what is left will have passed."""
        return Clock(time.monotonic() + share * self.left)


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        seconds: after which no step is begun.
        block_steps: of the optimiser, for each block; 0: all of the graph is taught from the start.
        whole_steps: for all of the graph.
        train_pieces: of samples to learn from.
        held_pieces: of samples that are held back.
    """

    seconds: float
    block_steps: int = BLOCK_STEPS
    whole_steps: int = WHOLE_STEPS
    train_pieces: int = TRAIN_PIECES
    held_pieces: int = HELD_PIECES


def reconstruct(
    quantized: onnx.ModelProto, fitted: onnx.ModelProto, reference: onnx.ModelProto, samples: Sequence[Sample], effort: Effort,
    *, bar: Bar, rate_hz: int | None = None, seed: int = 0, threads: int = 1,
) -> Reconstruction:  # fmt: skip
    """Change the constants of a quantized graph, in place, so that it gives what the float graph gives.

    Args:
        quantized: with Q/DQ pairs.
        fitted: the float graph that it was written from.
        reference: the float graph whose outputs are right; its tensors have the same names.
        samples: calibration data, two at least.
        effort: how much is done.
        bar: shows how far it is.
        rate_hz: sample rate, where the graph's one output may be audio.
        seed: of pieces and their order; the same seed gives the same graph, where there is time for all steps.
        threads: of ONNX Runtime and torch.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _Job(quantized, fitted, reference, samples, effort, bar, rate_hz, seed, threads).run()
    finally:
        torch.set_num_threads(before)


class _Job:
    def __init__(
        self, quantized: onnx.ModelProto, fitted: onnx.ModelProto, reference: onnx.ModelProto, samples: Sequence[Sample],
        effort: Effort, bar: Bar, rate_hz: int | None, seed: int, threads: int,
    ) -> None:  # fmt: skip
        self.quantized, self.reference, self.effort, self.bar = quantized, reference, effort, bar
        self.seed, self.threads, self.rate_hz = seed, threads, rate_hz
        self.start = time.monotonic()
        self.clock = Clock(self.start + effort.seconds)
        self.learned = learned_of(quantized, fitted)
        self.parts = parts_of(quantized, reference, self.learned)
        nodes = list(reference.graph.node)
        everything = None if unknown_operators(nodes) else TorchGraph(reference, nodes)
        train, held = held_back(samples)
        pieces = [
            pieces_of_inputs(reference, everything, part, count, seed + place)
            for place, (part, count) in enumerate(((train, effort.train_pieces), (held, effort.held_pieces)))
        ]
        self.cut = any(one is None for one in pieces)
        self.train, self.held = (train, held) if self.cut else (pieces[0] or [], pieces[1] or [])
        self.rows: list[ReconstructedPart] = []

    def run(self) -> Reconstruction:
        whole, blocks = self.parts.whole, self.parts.blocks
        ends = None if whole is None else self._data(whole)
        first = self.learned.snapshot(self.learned.tensors())
        error = None if whole is None or ends is None else self._teacher(whole, ends).error(ends[1])
        data: Data | None = None
        for place, part in enumerate(blocks if self.effort.block_steps and not self._makes_audio_from_its_inputs(ends) else ()):
            if not self.clock.left:
                break
            if len(blocks) == 1 and whole is not None and whole.inputs == part.inputs:
                break  # the same again
            share = BLOCKS_SHARE if whole is not None else 1.0
            data = self._next(part, blocks[place - 1], data) if data else self._data(part)
            self._teach(part, data, self.effort.block_steps, self.clock.share(share / (len(blocks) - place)))
            write_back(self.quantized, self.learned)
        if whole is not None and ends is not None and error is not None:
            if blocks and whole.inputs and not set(whole.inputs) <= set(self.train[0].inputs):
                ends = self._data(whole)  # what is before it has changed
            elif self._teacher(whole, ends).error(ends[1]) > error:
                self.learned.restore(first)  # each block is better by itself, and all of them are worse
                self.rows = [_taken_back(row) for row in self.rows]
            self._teach(whole, ends, self.effort.whole_steps, self.clock)
        write_back(self.quantized, self.learned)
        unfinished = not self.clock.left or any(not row.in_time for row in self.rows)
        return Reconstruction(self.rows, dict(self.parts.left), time.monotonic() - self.start, unfinished)

    def _makes_audio_from_its_inputs(self, ends: Data | None) -> bool:
        """Return whether all of the graph can be taught to make audio: its blocks alone lead no further then."""
        whole = self.parts.whole
        if whole is None or ends is None or self.rate_hz is None or not _is_audio(ends[0][0]):
            return False
        return set(whole.inputs) <= set(self.train[0].inputs)

    def _next(self, part: Part, before: Part, data: Data) -> Data:
        """Return what a block is taught on, out of what the one before it was, where that has all that it reads."""
        graph = TorchGraph(self.quantized, before.nodes, self.learned)
        train, held = (following(part, before, graph, self.reference, crops) for crops in data)
        return self._data(part) if train is None or held is None else (train, held)

    def _data(self, part: Part) -> Data:
        counts = (self.effort.train_pieces, self.effort.held_pieces)
        train, held = (
            crops_of(
                part, self.quantized, self.reference, samples, count, cut=self.cut, seed=self.seed + place, threads=self.threads
            )
            for place, (samples, count) in enumerate(zip((self.train, self.held), counts, strict=True))
        )
        return train, held

    def _teacher(self, part: Part, data: Data) -> Teacher:
        audio = self.rate_hz if part is self.parts.whole and _is_audio(data[0][0]) else None
        return Teacher(part, TorchGraph(self.quantized, part.nodes, self.learned), self.learned, audio)

    def _teach(self, part: Part, data: Data, steps: int, clock: Clock) -> None:
        teacher = self._teacher(part, data)
        with self.bar(part.name, steps) as advance:
            outcome = teacher.teach(data[0], data[1], steps, self.seed, clock, advance)
        layers = sum(1 for node in part.nodes if len(node.input) > 1 and node.input[1] in self.learned.weights)
        self.rows.append(
            ReconstructedPart(
                part.name, layers, teacher.measure, outcome.steps, *outcome.train, *outcome.held, outcome.kept, outcome.in_time
            )
        )


def _taken_back(row: ReconstructedPart) -> ReconstructedPart:
    """Return a row of a part that was better by itself and is not kept after all."""
    before = row.calibration_before, row.held_back_before
    return replace(row, kept=False, calibration_after=before[0], held_back_after=before[1])


def _is_audio(crop: Crop) -> bool:
    """Return whether a part makes one waveform of each sample, long enough to be looked at as a spectrum."""
    if len(crop.right) != 1:
        return False
    [made] = crop.right.values()
    return bool(made.dim() > 0 and made.shape[-1] >= 2 * LEAST_SAMPLES and made[0].numel() == made.shape[-1])
