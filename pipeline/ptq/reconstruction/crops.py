"""Pieces of calibration samples at the inputs of a part.

A graph whose one input has a free length is given pieces of its samples from the start, so that every part runs on short data.
In others (token ids, lengths beside features) pieces are cut where a part begins, along the axis that differs from sample to
sample. The float part runs on the same pieces, so that what a piece lacks beyond its ends is missing in both.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch

from pipeline.graph.shorten_samples import free_axes, length_along, part_of
from pipeline.ptq.layer_order import stream
from pipeline.ptq.reconstruction.parts import Part
from pipeline.ptq.reconstruction.torch_graph import TorchGraph
from pipeline.ptq.reconstruction.training import Crop, Tensor
from pipeline.sample import Array, Sample

PIECE_ELEMENTS = 12_000_000  # of all tensors that a part makes of a piece: what a step of training costs follows from it
LEAST_POSITIONS = 24
TRAIN_PIECES, HELD_PIECES = 96, 16

Feeds = Mapping[str, Array]


def held_back(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to learn from, and every fifth, which is held back (of fewer than five, the last)."""
    if len(samples) < 5:
        return list(samples[:-1]), list(samples[-1:])
    return [one for place, one in enumerate(samples) if place % 5], list(samples[::5])


def pieces_of_inputs(
    model: onnx.ModelProto, whole: TorchGraph | None, samples: Sequence[Sample], count: int, seed: int
) -> list[Sample] | None:
    """Return pieces of samples of the graph; None where it cannot be given less than a sample.

    Args:
        model: the float graph.
        whole: all of it in torch; None: it cannot run there.
        samples: as calibration has them.
        count: pieces.
        seed: of where they are cut.
    """
    axes = free_axes(model, samples)
    if axes is None or len(axes) != 1 or whole is None:
        return None
    lengths = [length_along(sample, axes) or 0 for sample in samples]
    middle = samples[int(np.argsort(lengths)[len(lengths) // 2])]
    outputs = [output.name for output in model.graph.output]
    probe = part_of(middle, axes, 0, min(length_along(middle, axes) or 0, 4 * LEAST_POSITIONS))
    elements = whole.elements(_tensors(probe.inputs), outputs)
    length = _length(elements / (length_along(probe, axes) or 1), lengths)
    rng = np.random.default_rng(seed)
    long = [place for place, size in enumerate(lengths) if size >= length]
    chosen = [long[place % len(long)] for place in range(count)]
    return [part_of(samples[place], axes, int(rng.integers(0, lengths[place] - length + 1)), length) for place in chosen]


def crops_of(
    part: Part, quantized: onnx.ModelProto, reference: onnx.ModelProto, samples: Sequence[Sample], count: int, *, cut: bool,
    seed: int, threads: int,
) -> list[Crop]:  # fmt: skip
    """Return what a part is taught on.

    Args:
        part: the part.
        quantized: the quantized graph as it is now.
        reference: the float graph.
        samples: pieces of samples, or whole ones.
        count: pieces at most.
        cut: whether samples are still to be cut.
        seed: of where.
        threads: of ONNX Runtime.
    """
    original = TorchGraph(reference, part.original)
    rng = np.random.default_rng(seed)
    seen, right = (_inputs(model, part.inputs, samples, threads) for model in (quantized, reference))
    # tensors whose lengths the two graphs decide differently: both then start from what the quantized one gives
    pairs = [
        (mine, mine if any(mine[n].shape != other[n].shape for n in mine) else other)
        for mine, other in zip(seen, right, strict=True)
    ]
    if cut:
        pairs = _cut(part, original, pairs, count, rng)
    made = []
    for mine, other in pairs:
        with torch.no_grad():
            made.append(
                Crop(
                    _tensors(mine),
                    _tensors(other),
                    dict(zip(part.outputs, original.run(_tensors(other), part.outputs), strict=True)),
                )
            )
    return made


def following(
    part: Part, before: Part, graph: TorchGraph, reference: onnx.ModelProto, crops: Sequence[Crop]
) -> list[Crop] | None:
    """Return what a part is taught on, out of what the part before it was; None where it reads something else.

    Args:
        part: the part.
        before: the one before it.
        graph: its quantized nodes, with what they have learned.
        reference: the float graph.
        crops: what that part was taught on.
    """
    if not set(part.inputs) <= {*before.outputs, *crops[0].quantized}:
        return None
    original = TorchGraph(reference, part.original)
    found: list[Crop] = []
    with torch.no_grad():
        for crop in crops:
            made = dict(zip(before.outputs, graph.run(crop.quantized, before.outputs), strict=True))
            mine, other = (
                {n: tensors[n] for n in part.inputs} for tensors in (crop.quantized | made, crop.original | crop.right)
            )
            found.append(Crop(mine, other, dict(zip(part.outputs, original.run(other, part.outputs), strict=True))))
    return found


def _inputs(model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Sample], threads: int) -> list[Feeds]:
    computed = [name for name in names if any(name not in sample.inputs for sample in samples)]
    if not computed:
        return [{name: sample.inputs[name] for name in names} for sample in samples]
    found = stream(model, computed, samples, threads)
    return [
        {name: sample.inputs[name] if name in sample.inputs else tensors[name] for name in names}
        for sample, tensors in zip(samples, found, strict=True)
    ]


def _cut(
    part: Part, original: TorchGraph, pairs: Sequence[tuple[Feeds, Feeds]], count: int, rng: np.random.Generator
) -> list[tuple[Feeds, Feeds]]:
    """Return pieces along the axis in which the first input of a part differs from sample to sample; all where none does."""
    axes = _axes([mine for mine, _ in pairs])
    if not axes:
        return list(pairs)[:count]
    name, axis = next(iter(axes.items()))
    lengths = [mine[name].shape[axis] for mine, _ in pairs]
    middle = int(np.argsort(lengths)[len(lengths) // 2])
    probe = _piece(pairs[middle][1], axes, 0, min(lengths[middle], 4 * LEAST_POSITIONS))
    elements = original.elements(_tensors(probe), part.outputs)
    length = _length(elements / probe[name].shape[axis], lengths)
    long = [place for place, size in enumerate(lengths) if size >= length]
    found = []
    for number in range(count):
        place = long[number % len(long)]
        start = int(rng.integers(0, lengths[place] - length + 1))
        found.append((_piece(pairs[place][0], axes, start, length), _piece(pairs[place][1], axes, start, length)))
    return found


def _axes(feeds: Sequence[Feeds]) -> dict[str, int]:
    """Return the axis of each input that is as long as a sample is; {} where that is not clear."""
    found: dict[str, int] = {}
    for name, first in feeds[0].items():
        if any(one[name].ndim != first.ndim for one in feeds):
            return {}
        free = [axis for axis in range(first.ndim) if len({one[name].shape[axis] for one in feeds}) > 1]
        if len(free) > 1:
            return {}
        if free:
            found[name] = free[0]
    same = all(len({one[name].shape[axis] for name, axis in found.items()}) == 1 for one in feeds)
    return found if found and same else {}


def _piece(feeds: Feeds, axes: Mapping[str, int], start: int, length: int) -> Feeds:
    return {
        name: array[(slice(None),) * axes[name] + (slice(start, start + length),)] if name in axes else array
        for name, array in feeds.items()
    }


def _length(elements: float, lengths: Sequence[int]) -> int:
    """Return how many positions a piece has: what may be computed; a quarter of the samples at most are shorter."""
    wanted = max(round(PIECE_ELEMENTS / max(elements, 1.0)), LEAST_POSITIONS)
    return max(min(wanted, int(np.quantile(lengths, 0.25, method="lower"))), 1)


def _tensors(feeds: Feeds) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
