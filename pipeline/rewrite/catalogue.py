"""All rewrites, in the order in which they are tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, did_you_mean
from pipeline.rewrite import (
    affine,
    alike,
    batch_norm,
    blocked,
    channels_last,
    conv2d,
    conv_pads,
    floor,
    fold,
    layer_norm,
    lengths,
    mask,
    mish,
    padding,
    pointwise,
    queries,
    reshape,
    scale,
    scatter,
    selection,
    shift,
    square,
    together,
    transposed,
)
from pipeline.rewrite.graph import Graph

LESS = "less"  # of the same work
NORMS = "norms"


@dataclass(frozen=True)
class Rewrite:
    """One kind of change.

    Attributes:
        name: in settings and reports.
        change: does it to a graph, and returns the number of places, or the reason why there is none.
        summary: what it does, in one line.
        timed_with: neighbours of the same word are timed together first: each takes so little away that it would drown in
            noise alone.
    """

    name: str
    change: Callable[[Graph], int | str]
    summary: str
    timed_with: str | None = None


REWRITES: tuple[Rewrite, ...] = (
    Rewrite("mish", mish.rewrite, "tanh(softplus(x)) by one sigmoid"),
    Rewrite("alike", alike.rewrite, "the shape of tensors of equal lengths, asked for once", LESS),
    Rewrite("lengths", lengths.rewrite, "numbers that follow from known lengths, as constants", LESS),
    Rewrite("reshape", reshape.rewrite, "the shape of a Reshape as a constant", LESS),
    Rewrite("floor", floor.rewrite, "quotients of integers rounded down, in three nodes", LESS),
    Rewrite("conv_pads", conv_pads.rewrite, "zeros around the input of a Conv inside its own padding", LESS),
    Rewrite("batch_norm", batch_norm.rewrite, "a batch norm inside the weights before it", LESS),
    Rewrite("square", square.rewrite, "x ** 2 as x * x, x / c as x * (1 / c)", LESS),
    Rewrite("shift", shift.rewrite, "a number added to the input of a Conv inside its bias", LESS),
    Rewrite("scale", scale.rewrite, "a constant factor inside the weights beside it", LESS),
    Rewrite("queries", queries.rewrite, "the scale of attention scores and the rows added to queries inside weights", LESS),
    Rewrite("padding", padding.rewrite, "zeros that several layers pad with, put once where they come from", LESS),
    Rewrite("together", together.rewrite, "products of one tensor with the weights of several layers, as one", LESS),
    Rewrite("mask", mask.rewrite, "masks that are applied again further on, dropped", LESS),
    Rewrite("selection", selection.rewrite, "selection by a mask as a product and a sum", LESS),
    Rewrite("scatter", scatter.rewrite, "an update of a whole range as Slice and Concat"),
    Rewrite("layer_norm", layer_norm.rewrite, "layer norm over channels as LayerNormalization between transpositions", NORMS),
    Rewrite("affine", affine.rewrite, "a factor and a shift of each channel in one pass", NORMS),
    Rewrite("pointwise", pointwise.rewrite, "Conv of one tap over time as a product of matrices, with channels last"),
    Rewrite("conv2d", conv2d.rewrite, "Conv over time as Conv over an image of height 1, in whole regions"),
    Rewrite("conv2d_wide", conv2d.rewrite_wide, "the same for Convs of several taps and many channels, each alone"),
    Rewrite("fold", fold.rewrite, "several moments at once in Convs with few output channels"),
    Rewrite("transposed", transposed.rewrite, "ConvTranspose as Conv, its output interleaved"),
    Rewrite("blocked", blocked.rewrite, "residual blocks in the layout of their Convs"),
    Rewrite("channels_last", channels_last.rewrite, "integer Convs and what lies between them with channels last"),
)

# These give Convs the layout that their kernels like best. They come after quantization, which decides what is left float:
# a Conv over an image of height 1 is no faster in integers than one over time.
LAYOUTS: tuple[Rewrite, ...] = tuple(
    r for name in ("channels_last", "conv2d", "conv2d_wide", "fold", "blocked") for r in REWRITES if r.name == name
)
OPERATORS: tuple[Rewrite, ...] = tuple(r for r in REWRITES if r not in LAYOUTS)


def check_names(names: Sequence[str], key: str) -> None:
    """Check that there is a rewrite of each name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    known = [rewrite.name for rewrite in REWRITES]
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}: there is no rewrite {name!r}.{did_you_mean(name, known)}")
