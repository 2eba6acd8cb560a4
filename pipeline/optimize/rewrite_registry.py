"""All rewrites, in the order in which they are tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, did_you_mean
from pipeline.graph.graph_editor import Graph
from pipeline.optimize.layout import conv1d_to_conv2d, integer_channels_last, keep_nchwc_layout, time_to_channels
from pipeline.optimize.rules import (
    conv1x1_to_matmul,
    conv_transpose_to_conv,
    decompose_mish,
    deduplicate_shape_ops,
    drop_redundant_masks,
    fold_add_into_bias,
    fold_attention_scale,
    fold_mul_into_weights,
    fold_static_dims,
    fuse_batch_norm,
    fuse_layer_norm,
    fuse_pad_into_conv,
    hoist_padding,
    materialize_reshape_shape,
    merge_parallel_matmuls,
    mul_add_to_batch_norm,
    scatter_nd_to_concat,
    simplify_floor_div,
    strength_reduction,
    where_to_arithmetic,
)

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
    Rewrite("mish", decompose_mish.rewrite, "tanh(softplus(x)) by one sigmoid"),
    Rewrite("alike", deduplicate_shape_ops.rewrite, "the shape of tensors of equal lengths, asked for once", LESS),
    Rewrite("lengths", fold_static_dims.rewrite, "numbers that follow from known lengths, as constants", LESS),
    Rewrite("reshape", materialize_reshape_shape.rewrite, "the shape of a Reshape as a constant", LESS),
    Rewrite("floor", simplify_floor_div.rewrite, "quotients of integers rounded down, in three nodes", LESS),
    Rewrite("conv_pads", fuse_pad_into_conv.rewrite, "zeros around the input of a Conv inside its own padding", LESS),
    Rewrite("batch_norm", fuse_batch_norm.rewrite, "a batch norm inside the weights before it", LESS),
    Rewrite("square", strength_reduction.rewrite, "x ** 2 as x * x, x / c as x * (1 / c)", LESS),
    Rewrite("shift", fold_add_into_bias.rewrite, "a number added to the input of a Conv inside its bias", LESS),
    Rewrite("scale", fold_mul_into_weights.rewrite, "a constant factor inside the weights beside it", LESS),
    Rewrite(
        "queries",
        fold_attention_scale.rewrite,
        "the scale of attention scores and the rows added to queries inside weights",
        LESS,
    ),
    Rewrite("padding", hoist_padding.rewrite, "zeros that several layers pad with, put once where they come from", LESS),
    Rewrite(
        "together", merge_parallel_matmuls.rewrite, "products of one tensor with the weights of several layers, as one", LESS
    ),
    Rewrite("mask", drop_redundant_masks.rewrite, "masks that are applied again further on, dropped", LESS),
    Rewrite("selection", where_to_arithmetic.rewrite, "selection by a mask as a product and a sum", LESS),
    Rewrite("scatter", scatter_nd_to_concat.rewrite, "an update of a whole range as Slice and Concat"),
    Rewrite(
        "layer_norm", fuse_layer_norm.rewrite, "layer norm over channels as LayerNormalization between transpositions", NORMS
    ),
    Rewrite("affine", mul_add_to_batch_norm.rewrite, "a factor and a shift of each channel in one pass", NORMS),
    Rewrite("pointwise", conv1x1_to_matmul.rewrite, "Conv of one tap over time as a product of matrices, with channels last"),
    Rewrite("conv2d", conv1d_to_conv2d.rewrite, "Conv over time as Conv over an image of height 1, in whole regions"),
    Rewrite("conv2d_wide", conv1d_to_conv2d.rewrite_wide, "the same for Convs of several taps and many channels, each alone"),
    Rewrite("fold", time_to_channels.rewrite, "several moments at once in Convs with few output channels"),
    Rewrite("transposed", conv_transpose_to_conv.rewrite, "ConvTranspose as Conv, its output interleaved"),
    Rewrite("blocked", keep_nchwc_layout.rewrite, "residual blocks in the layout of their Convs"),
    Rewrite("channels_last", integer_channels_last.rewrite, "integer Convs and what lies between them with channels last"),
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
