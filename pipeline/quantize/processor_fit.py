"""For which processors a finished graph is right, and where its sums of integer products would saturate."""

import logging
from collections.abc import Sequence

import onnx

from pipeline.config.choices import Target
from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, DynamicConfig, StaticConfig
from pipeline.errors import PipelineError
from pipeline.graph.large_models import byte_size
from pipeline.graph.session import ORT_ERRORS
from pipeline.quantize.saturation import integer_products, saturating_shares, weight_bits_of
from pipeline.quantize.target import (
    PROCESSORS,
    adds_in_16_bits,
    exact_on_target_only,
    is_arm,
    limits_pairs,
    target_of,
    this_machine,
)
from pipeline.record.results import ProcessorFit
from pipeline.sample import Sample

log = logging.getLogger(__name__)

NAME_ENDS = "_quant"  # what an integer operator with dynamic ranges has behind the name of its node
COUNTED_BYTES = 256 << 20  # of a graph whose saturating sums are counted: it takes copies, and minutes beyond
WORST = 3  # nodes that a warning names


def processor_fit(model: onnx.ModelProto, mode: AnyModeConfig, samples: Sequence[Sample], *, threads: int = 1) -> ProcessorFit:
    """Return for which processors a finished graph is right.

    Args:
        model: the graph.
        mode: what it was made with.
        samples: of calibration; sums that would saturate are counted on a few; of none, nothing is counted.
        threads: intra-op threads.
    """
    made_for = target_of(mode.target).name if isinstance(mode, DynamicConfig | StaticConfig | AutoConfig) else None
    found: dict[str, float | None] = {product.node.name: None for product in integer_products(model) if product.can_saturate}
    if found and samples:
        found |= _shares(model, samples, threads)
    reduce_range = mode.reduce_range if isinstance(mode, StaticConfig) else None
    limited = isinstance(mode, StaticConfig | AutoConfig) and limits_pairs(reduce_range, mode.target)
    in_range = [node for node, share in found.items() if limited and not share]  # by construction: see activation_pairs.py
    found = {node: share for node, share in found.items() if node not in in_range}
    wrong = [target.name for target in Target if found and PROCESSORS[target].in_16_bits]
    return ProcessorFit(
        made_for=made_for,
        right_on=[target.name for target in Target if target.name not in wrong],
        saturates_on=wrong,
        saturating_sums={node.removesuffix(NAME_ENDS): share for node, share in found.items()},
        exact_in_range=[node.removesuffix(NAME_ENDS) for node in in_range],
        weight_bits={node.removesuffix(NAME_ENDS): bits for node, bits in weight_bits_of(model).items()},
    )


def _shares(model: onnx.ModelProto, samples: Sequence[Sample], threads: int) -> dict[str, float | None]:
    """Return what `saturating_shares` does; nothing where a graph is too large to be copied, or does not give its tensors."""
    if byte_size(model) > COUNTED_BYTES:
        return {}
    try:
        return saturating_shares(model, samples, threads=threads)
    except (*ORT_ERRORS, PipelineError, MemoryError):  # it explains the result: no fault of it may end a run
        log.debug("the share of sums that saturate", exc_info=True)
        return {}


def warnings_on_processors(name: str, fit: ProcessorFit, mode: AnyModeConfig) -> list[str]:
    """Return what a user must know of a graph that saturates where it will run, or that is not measured where it will run."""
    notes: list[str] = []
    if not isinstance(mode, DynamicConfig | StaticConfig | AutoConfig):
        return notes
    target = target_of(mode.target)
    if fit.saturating_sums and adds_in_16_bits(mode.target):
        counted = sorted(((share, node) for node, share in fit.saturating_sums.items() if share), reverse=True)
        worst = ", ".join(f"{node} {100 * share:.2g} %" for share, node in counted[:WORST])
        notes.append(
            f"{name}: {len(fit.saturating_sums)} nodes have int8 weights so large that sums of two products can saturate on "
            f"{target.name}{f'; on calibration data they do in {len(counted)}: {worst} of the sums' if counted else ''}. Leave "
            "out mode.reduce_range, or set it to true."
        )
    if exact_on_target_only(mode):
        notes.append(
            f"{name}: sums of products with int8 weights saturate on this processor ({this_machine().name}) and not on "
            f"{target.name}: quality is measured with exact sums, as {target.name} computes them. Speed is that of this one."
        )
    elif is_arm(target) and not is_arm(this_machine()):
        notes.append(
            f"{name}: made for {target.name}: quality is measured with exact sums of integers, which are the same there; speed "
            "is that of this processor."
        )
    return notes
