"""Which mode is advised for a graph, from where its time goes; and that it is not known, where the profile does not tell."""

from collections.abc import Mapping, Sequence

from pipeline.config.choices import CalibrationKind

CONVOLUTIONS = ("Conv", "ConvTranspose")
MATRIX_PRODUCTS = ("MatMul", "Gemm", "LSTM", "GRU", "RNN", "Attention")
NOT_SURE = "not sure"
STEADY = 0.15  # of the time: where two halves of a profile disagree by more, neither tells where the time goes
MOSTLY_FLOAT = 0.6  # of the time in operators without integer kernels: int8 alone gains at most 1.7 times
FEW_PARAMETERS = 1000  # below which half of their size is nothing
WORTH_RANGES = 0.25  # of the time of convolutions and products in convolutions: static ranges pay


def advise(
    macs: Mapping[str, int],
    time_share: Mapping[str, float],
    calibration: CalibrationKind,
    spread: float = 0.0,
    *,
    parameters: int,
) -> tuple[str, list[str]]:
    """Return the mode that fits a graph, or `not sure`, and why.

    Integer kernels pay in convolutions only with ranges that are known beforehand, so those need data; matrix products gain
    as much when ranges are computed while the model runs. Other operators gain nothing from int8, but rewrites may.

    Args:
        macs: operator type -> multiply-accumulates of one inference.
        time_share: operator type, as ONNX Runtime runs it -> share of the time of one inference, 0 to 1.
        calibration: where calibration data would come from: without data, there is nothing to take ranges from.
        spread: how far two halves of the profile disagree on the shares, 0 to 1.
        parameters: values of all constants of float type.
    """
    total = sum(macs.values())
    if not total and parameters < FEW_PARAMETERS:
        return "optimize", [
            "it has no convolution, no matrix product and hardly a weight: int8 and fp16 would gain nothing, rewrites may"
        ]
    if not total:
        return "fp16", ["it has no convolution and no matrix product: int8 would gain nothing, fp16 halves its size"]
    real = calibration is not CalibrationKind.random
    work = {
        kind: sum(macs.get(op, 0) for op in ops) / total for kind, ops in (("conv", CONVOLUTIONS), ("product", MATRIX_PRODUCTS))
    }
    reasons = [
        f"{_percent(work['conv'])} of its multiplications are in convolutions, {_percent(work['product'])} in matrix products"
    ]
    if spread > STEADY:
        alone, _ = _by_kernels(work["conv"], work["product"], real=real)
        return NOT_SURE, [
            *reasons,
            f"two halves of its profile disagree on {_percent(spread)} of the time: the machine was busy, so where the time "
            "goes is not known. Inspect it again on a quiet machine (stages=[load,inspect])",
            f"by its multiplications alone it would be {alone}",
        ]
    convolutions, products = (_share(time_share, ops) for ops in (CONVOLUTIONS, MATRIX_PRODUCTS))
    other = max(1.0 - convolutions - products, 0.0)
    reasons.append(
        f"of its time {_percent(convolutions)} is in convolutions, {_percent(products)} in matrix products, {_percent(other)} "
        "in other operators, which int8 does not make faster"
    )
    if other >= MOSTLY_FLOAT:
        bound = f"int8 alone could make it at most {1 / other:.2f} times as fast; rewrites of float operators may gain more"
        if real:
            return "auto", [*reasons, f"{bound}, and mode=auto makes them first, then uses int8 where that is measured to gain"]
        return "optimize", [*reasons, f"{bound}, and mode=optimize needs no calibration data"]
    advised, why = _by_kernels(convolutions, products, real=real)
    return advised, [*reasons, why]


def spread_of(halves: Sequence[Mapping[str, float]]) -> float:
    """Return how far two halves of a profile disagree on where the time goes: the largest difference of a family's share.

    Args:
        halves: operator type -> share of the time, of each half; none where there was one inference.
    """
    if len(halves) < 2:
        return 0.0
    return max(abs(_share(halves[0], ops) - _share(halves[1], ops)) for ops in (CONVOLUTIONS, MATRIX_PRODUCTS))


def convolution_share(time_share: Mapping[str, float]) -> float:
    """Return the share of the time that convolutions take."""
    return _share(time_share, CONVOLUTIONS)


def multiplies(op_type: str) -> bool:
    """Whether an operator, as ONNX Runtime runs it, is a convolution or a matrix product: what integers make faster."""
    return any(name in op_type for name in (*CONVOLUTIONS, *MATRIX_PRODUCTS))


def _by_kernels(convolutions: float, products: float, *, real: bool) -> tuple[str, str]:
    """Return the mode whose kernels fit the shares of convolutions and of matrix products, and why."""
    if convolutions < WORTH_RANGES * (convolutions + products):
        return "dynamic", "matrix products gain as much with dynamic ranges, which need no calibration data"
    if real:
        return "static", "convolutions gain from int8 only with ranges measured on real data, and there is data"
    return "dynamic", (
        "static would be faster, but its ranges need real data (calibration=real or calibration=arrays), and there is none"
    )


def _share(time_share: Mapping[str, float], ops: tuple[str, ...]) -> float:
    return sum(share for op, share in time_share.items() if any(name in op for name in ops))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
