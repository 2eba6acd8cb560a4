"""One part of a graph, taught to give what the float graph gives.

Adam on all that is learned (`fake_quantization`), the step of each number measured in its own unit: weights in steps of their
grid, biases in what the channels of their layer are about, scales in per cent. The rate falls along a cosine. Of the states at
some points of the way, the one with the least error on held-back samples is kept; if that is the first, nothing has changed.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.ptq.reconstruction.fake_quantization import Learned
from pipeline.ptq.reconstruction.parts import Part
from pipeline.ptq.reconstruction.spectral_loss import log_mel_distance
from pipeline.ptq.reconstruction.torch_graph import TorchGraph

Tensor = Any  # torch.Tensor: types are checked where PyTorch need not be installed
Tensors = dict[str, Tensor]

WEIGHT_RATE = 0.009  # of a step of the weight's grid
SCALE_RATE = 3e-3  # of the logarithm of a scale
ZERO_RATE = 0.06  # of an integer
BIAS_RATE = 6e-4  # of what the layer puts out
WARM_UP = 10  # steps
MEASURED = 5  # steps, until it is known how long one takes
LOOKS = 4  # at held-back samples on the way
SQUARED_SHARE = 0.05  # of the squared error beside a spectral one: it keeps the phase


class Clock(Protocol):
    """The time that is left."""

    @property
    def left(self) -> float:
        """Seconds; 0 where it is over."""


@dataclass(frozen=True)
class Crop:
    """A piece of a sample at the inputs of a part.

    Attributes:
        quantized: input -> what the quantized graph before it gives, whose errors are to be made up for.
        original: input -> what the float graph before it gives.
        right: output -> what the float part makes of the float graph's inputs.
    """

    quantized: Tensors
    original: Tensors
    right: Tensors


@dataclass(frozen=True)
class Outcome:
    """What teaching a part has brought.

    Attributes:
        steps: of the optimiser.
        train: error on the data that it learned from, before and after.
        held: error on what was held back, before and after; after is what was kept.
        kept: whether what was learned is better, and kept.
        in_time: whether there was time for all steps.
    """

    steps: int
    train: tuple[float, float]
    held: tuple[float, float]
    kept: bool
    in_time: bool


class Teacher:
    """Teaches one part.

    Args:
        part: the part.
        graph: its quantized nodes.
        learned: what is learned, of the whole graph.
        rate_hz: where the part makes audio, its sample rate: its error is then the distance of log-mels.
    """

    def __init__(self, part: Part, graph: TorchGraph, learned: Learned, rate_hz: int | None) -> None:
        self._part, self._graph, self._learned, self._rate_hz = part, graph, learned, rate_hz
        self._tensors = learned.tensors(part.names)

    @property
    def measure(self) -> str:
        """What `error` is of."""
        return "squared error" if self._rate_hz is None else "log-mel distance"

    def teach(
        self, train: Sequence[Crop], held: Sequence[Crop], steps: int, seed: int, clock: Clock,
        on_step: Callable[[], None],
    ) -> Outcome:  # fmt: skip
        """Change what is learned, where that makes the error on held-back data smaller.

        Args:
            train: pieces, each of them a step.
            held: pieces that decide what is kept.
            steps: of the optimiser; where there is no time for all, as many as there is time for.
            seed: of the order of the pieces.
            clock: the time.
            on_step: called after each step.
        """
        before = self.error(held)
        train_before = self.error(train[: len(held)])
        best, best_error, first = self._learned.snapshot(self._tensors), before, True
        optimiser = torch.optim.Adam(self._groups(train[0]), betas=(0.9, 0.99))
        order = self._order(len(train), seed)
        planned, done, start = steps, 0, time.monotonic()
        while done < planned and clock.left:
            rate = min((done + 1) / WARM_UP, 0.5 * (1.0 + math.cos(math.pi * done / planned)))
            for group in optimiser.param_groups:
                group["lr"] = group["unit"] * rate
            optimiser.zero_grad(set_to_none=True)
            self._loss(train[next(order)]).backward()
            optimiser.step()
            done += 1
            on_step()
            if done >= MEASURED:  # the rate is to have fallen when the time is over
                possible = done + int(clock.left / (time.monotonic() - start) * done)
                planned = max(min(planned, possible), done)
            if done >= planned or done * LOOKS // planned > (done - 1) * LOOKS // planned:
                error = self.error(held)
                if error < best_error:
                    best, best_error, first = self._learned.snapshot(self._tensors), error, False
        self._learned.restore(best)
        train_after = train_before if first else self.error(train[: len(held)])
        return Outcome(done, (train_before, train_after), (before, best_error), not first, done == steps)

    def _order(self, count: int, seed: int) -> Iterator[int]:
        rng = np.random.default_rng(seed)
        while True:
            yield from rng.permutation(count)

    def _groups(self, crop: Crop) -> list[dict[str, object]]:
        loudness = self._loudness(crop)
        groups: list[dict[str, object]] = []
        for name, tensor in self._tensors.items():
            base, _, kind = name.rpartition("/")
            match kind:
                case "weight":
                    unit = WEIGHT_RATE * float(self._learned.weights[base].log_scale.detach().exp().mean())
                case "bias":
                    unit = BIAS_RATE * loudness.get(base, 1.0)
                case "zero":
                    unit = ZERO_RATE
                case _:
                    unit = SCALE_RATE
            groups.append({"params": [tensor], "unit": unit, "lr": unit})
        return groups

    def _loudness(self, crop: Crop) -> Mapping[str, float]:
        """Return the root mean square of what each layer puts out, by the name of its bias."""
        layers = {
            node.input[2]: node.output[0]
            for node in self._part.nodes
            if len(node.input) > 2 and node.op_type in ("Conv", "ConvTranspose", "Gemm")
        }
        layers = {bias: output for bias, output in layers.items() if bias in self._learned.biases}
        with torch.no_grad():
            found = self._graph.run(crop.quantized, list(layers.values()))
        return {bias: float(values.square().mean().sqrt()) for bias, values in zip(layers, found, strict=True)}

    def _loss(self, crop: Crop) -> Tensor:
        made = self._graph.run(crop.quantized, self._part.outputs)
        if self._rate_hz is None:
            return squared_error(made, list(crop.right.values()))
        [audio], [right] = made, list(crop.right.values())
        audio, right = audio.reshape(len(audio), -1), right.reshape(len(right), -1)
        return log_mel_distance(audio, right, self._rate_hz) + SQUARED_SHARE * squared_error([audio], [right])

    def error(self, crops: Sequence[Crop]) -> float:
        """Return the mean error over pieces: log-mel L1 of audio, else squared error over the power of what is right."""
        errors = []
        with torch.no_grad():
            for crop in crops:
                made, right = self._graph.run(crop.quantized, self._part.outputs), list(crop.right.values())
                if self._rate_hz is None:
                    errors.append(float(squared_error(made, right)))
                else:
                    flat = [one.reshape(len(one), -1) for one in (made[0], right[0])]
                    errors.append(float(log_mel_distance(flat[0], flat[1], self._rate_hz, resolutions=1)))
        return float(np.mean(errors))


def squared_error(made: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return the squared error over the power of what is right, the mean of some tensors."""
    ratios = [
        (one - other).square().mean() / other.square().mean().clamp(min=1e-12) for one, other in zip(made, right, strict=True)
    ]
    return torch.stack(ratios).mean()
