"""All rewrites, in the order in which they are tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import ConfigError, did_you_mean
from pipeline.graph.graph_editor import Graph
from pipeline.optimize.layout import conv1d_to_conv2d, integer_channels_last, keep_nchwc_layout, time_to_channels
from pipeline.optimize.outcome import Outcome
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
    merge_views,
    mul_add_to_batch_norm,
    scatter_nd_to_concat,
    simplify_floor_div,
    strength_reduction,
    where_to_arithmetic,
)

LESS = "less"  # of the same work
NORMS = "norms"


class Exactness(Enum):
    """How far a rewritten graph computes the same as the one before it.

    Taken for granted everywhere: no tensor is empty, no input is NaN, and where a graph computes with a value, it is finite (an
    infinity in the input of a Conv spreads in the original as well, only not as far).
    """

    bitwise = "bitwise"
    """The same bits: data is moved, integers are computed otherwise, or the operators see the same numbers."""

    algebraic = "algebraic"
    """Equal in real arithmetic: only rounding, or the sign of a zero, may differ."""

    assumed = "assumed"
    """Equal where the inputs have a property that the graph does not state."""


@dataclass(frozen=True)
class Rewrite:
    """One kind of change.

    Attributes:
        name: in settings and reports: that of its module.
        change: applies it to a graph. A rule that has an assumption also takes `assume: bool`.
        summary: what it does, in one line.
        exactness: of the places where nothing is assumed.
        timed_with: neighbours of the same word are timed together first: each saves so little that its gain would be lost in
            noise alone.
        assumption: what it takes to be true of the inputs, in a sentence, where that does not follow from the graph; empty: it
            assumes nothing.
    """

    name: str
    change: Callable[..., Outcome]
    summary: str
    exactness: Exactness
    timed_with: str | None = None
    assumption: str = ""

    def apply(self, graph: Graph, *, assume: bool = False) -> Outcome:
        """Change a graph.

        Args:
            graph: collects the changes.
            assume: also change the places that rest on the assumption.
        """
        return self.change(graph, assume=assume) if self.assumption else self.change(graph)


REWRITES: tuple[Rewrite, ...] = (
    Rewrite("decompose_mish", decompose_mish.rewrite, "tanh(softplus(x)) by one sigmoid", Exactness.algebraic),
    Rewrite(
        "deduplicate_shape_ops",
        deduplicate_shape_ops.rewrite,
        "the shape of tensors of equal lengths, computed once",
        Exactness.bitwise,
        LESS,
        deduplicate_shape_ops.ASSUMPTION,
    ),
    Rewrite(
        "fold_static_dims",
        fold_static_dims.rewrite,
        "numbers that follow from known lengths, as constants",
        Exactness.bitwise,
        LESS,
    ),
    Rewrite(
        "materialize_reshape_shape",
        materialize_reshape_shape.rewrite,
        "the shape of a Reshape as a constant",
        Exactness.bitwise,
        LESS,
    ),
    Rewrite(
        "simplify_floor_div",
        simplify_floor_div.rewrite,
        "quotients of integers rounded down, in three nodes",
        Exactness.bitwise,
        LESS,
    ),
    Rewrite(
        "fuse_pad_into_conv",
        fuse_pad_into_conv.rewrite,
        "zeros around the input of a Conv inside its own padding",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite("fuse_batch_norm", fuse_batch_norm.rewrite, "a batch norm inside the weights before it", Exactness.algebraic, LESS),
    Rewrite(
        "strength_reduction", strength_reduction.rewrite, "x ** 2 as x * x, x / c as x * (1 / c)", Exactness.algebraic, LESS
    ),
    Rewrite(
        "fold_add_into_bias",
        fold_add_into_bias.rewrite,
        "a number added to the input of a Conv inside its bias",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "fold_mul_into_weights",
        fold_mul_into_weights.rewrite,
        "a constant factor inside the weights beside it",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "fold_attention_scale",
        fold_attention_scale.rewrite,
        "the scale of attention scores and the rows added to queries inside weights",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "hoist_padding",
        hoist_padding.rewrite,
        "zeros that several layers pad with, added once to their common source",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "merge_parallel_matmuls",
        merge_parallel_matmuls.rewrite,
        "products of one tensor with the weights of several layers, as one",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "drop_redundant_masks",
        drop_redundant_masks.rewrite,
        "masks that are applied again downstream, removed",
        Exactness.algebraic,
        LESS,
    ),
    Rewrite(
        "where_to_arithmetic",
        where_to_arithmetic.rewrite,
        "selection by a mask as a product and a sum",
        Exactness.algebraic,
        LESS,
        where_to_arithmetic.ASSUMPTION,
    ),
    Rewrite("merge_views", merge_views.rewrite, "operators that only change axes, as one or none", Exactness.bitwise, LESS),
    Rewrite(
        "scatter_nd_to_concat",
        scatter_nd_to_concat.rewrite,
        "an update of a whole range as Slice and Concat",
        Exactness.bitwise,
    ),
    Rewrite(
        "fuse_layer_norm",
        fuse_layer_norm.rewrite,
        "layer norm over channels as LayerNormalization between transposes",
        Exactness.algebraic,
        NORMS,
    ),
    Rewrite(
        "mul_add_to_batch_norm",
        mul_add_to_batch_norm.rewrite,
        "a factor and a shift of each channel in one pass",
        Exactness.algebraic,
        NORMS,
    ),
    Rewrite(
        "conv1x1_to_matmul",
        conv1x1_to_matmul.rewrite,
        "Conv of one tap over time as a matrix product, with channels last",
        Exactness.algebraic,
    ),
    Rewrite(
        "conv1d_to_conv2d",
        conv1d_to_conv2d.rewrite,
        "Conv over time as Conv over an image of height 1, in whole regions",
        Exactness.algebraic,
    ),
    Rewrite(
        "conv1d_to_conv2d_wide",
        conv1d_to_conv2d.rewrite_wide,
        "the same for Convs of several taps and many channels, each alone",
        Exactness.algebraic,
    ),
    Rewrite(
        "time_to_channels",
        time_to_channels.rewrite,
        "several frames at once in Convs with few output channels",
        Exactness.algebraic,
    ),
    Rewrite(
        "conv_transpose_to_conv",
        conv_transpose_to_conv.rewrite,
        "ConvTranspose as Conv, its output interleaved",
        Exactness.algebraic,
    ),
    Rewrite(
        "keep_nchwc_layout", keep_nchwc_layout.rewrite, "residual blocks in the layout of their Convs", Exactness.algebraic
    ),
    Rewrite(
        "integer_channels_last",
        integer_channels_last.rewrite,
        "integer Convs and what lies between them with channels last",
        Exactness.bitwise,
    ),
)

# These give Convs the layout that their kernels like best. They come after quantization, which decides what is left float:
# a Conv over an image of height 1 is not faster in integers than one over time.
LAYOUTS: tuple[Rewrite, ...] = tuple(
    r
    for name in ("integer_channels_last", "conv1d_to_conv2d", "conv1d_to_conv2d_wide", "time_to_channels", "keep_nchwc_layout")
    for r in REWRITES
    if r.name == name
)
OPERATORS: tuple[Rewrite, ...] = tuple(r for r in REWRITES if r not in LAYOUTS)


def check_names(names: Sequence[str], key: str) -> None:
    """Check that there is a rewrite of each name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    known = [rewrite.name for rewrite in REWRITES]
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}: no rewrite {name!r}.{did_you_mean(name, known)}")
