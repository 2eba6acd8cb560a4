"""Several neighbouring frames at once, for an integer Conv of few channels with channels last.

    y[f q + s, o] = sum_{i, j} w[o, i, j] x[f q + s + d j - p, i] = sum_{r, i, m} v[(s, o), (r, i), m] x'[q + m - p', (r, i)],
    x'[q, (r, i)] = x[f q + r, i],    v[(s, o), (r, i), m] = w[o, i, j] where f (m - p') + r = s + d j - p, else 0

x' is x as it lies in memory. The integer kernel takes vectors of 16 to 64 bytes; of 8 channels it wastes half of each, and
gathers them 8 bytes at a time. The added products are with zeros.
"""

import numpy as np

from pipeline.graph.graph_editor import Array

# Channels up to which a tap costs the same (measured with VNNI and AMX: 0.07 to 0.08 ms a tap for 8 to 32, 0.14 for 64)
VECTOR = 32
OVERHEAD = 2  # of an inference of the kernel, in taps
NARROW = 16  # channels; with fewer, the overhead is three times as large, and with dilation a tap costs four times as much


def best_frame_count(channels: int, taps: int, dilation: int, divisor: int) -> int:
    """Return how many frames a Conv takes at once with the least time.

    Args:
        channels: that it reads.
        taps: of its kernel.
        dilation: between them.
        divisor: a number that the length is a multiple of.
    """
    found = [count for count in (1, 2, 4, 8, 16) if divisor % count == 0 and (count == 1 or count * channels <= 2 * VECTOR)]
    return min(reversed(found), key=lambda count: _cost(channels, taps, dilation, count))


def several_frames(weights: Array, frames: int, pad: int, dilation: int) -> tuple[Array, list[int]]:
    """Return weights (out, in, k) as (frames * out, frames * in, k'), and the padding at both ends."""
    outputs, inputs, taps = weights.shape
    before, after = _reach(taps, dilation, frames, pad)
    wide = np.zeros((frames, outputs, frames, inputs, before + after + 1), weights.dtype)
    for frame in range(frames):
        for tap in range(taps):
            place, phase = divmod(frame + dilation * tap - pad, frames)
            wide[frame, :, phase, :, place + before] = weights[:, :, tap]
    return wide.reshape(frames * outputs, frames * inputs, -1), [before, after]


def _reach(taps: int, dilation: int, frames: int, pad: int) -> tuple[int, int]:
    """Return how many vectors of frames a Conv reads before and after the one that it computes."""
    return -(-pad // frames), (frames - 1 + dilation * (taps - 1) - pad) // frames


def _cost(channels: int, taps: int, dilation: int, frames: int) -> float:
    width = channels * frames
    if frames > 1:
        taps, dilation = sum(_reach(taps, dilation, frames, dilation * (taps - 1) // 2)) + 1, 1
    if width < NARROW:
        return OVERHEAD * 6 + taps * (4 if dilation > 1 else 1)
    return (OVERHEAD + taps) * max(width, VECTOR) / VECTOR
