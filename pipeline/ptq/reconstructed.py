"""`mode.reconstruct` as a stage sees it: whether it can be done, doing it, and what is said of it.

PyTorch is imported here alone, when a run asks for it: `pipeline/ptq/reconstruction/`.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import onnx

from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, StaticConfig
from pipeline.errors import ConfigError
from pipeline.extras import how_to_install
from pipeline.record.results import ReconstructedPart, Reconstruction
from pipeline.sample import Sample

Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""(what is done, steps) -> a block that gives what is to be called after each step."""

INSTALL = f"{how_to_install('reconstruct')} (the build for processors is enough), or leave the setting out"


def check_torch(modes: Iterable[AnyModeConfig]) -> None:
    """Check that what the modes ask for is installed, before anything is computed.

    Raises:
        ConfigError: PyTorch is missing.
    """
    asked = any(isinstance(mode, StaticConfig | AutoConfig) and mode.reconstruct for mode in modes)
    if asked and importlib.util.find_spec("torch") is None:
        raise ConfigError(f"mode.reconstruct=true: needs PyTorch, which is not installed: {INSTALL}.")


def reconstructed(
    quantized: onnx.ModelProto, fitted: onnx.ModelProto, reference: onnx.ModelProto,
    samples: Sequence[Sample], *, seconds: float, bar: Bar, rate_hz: int | None, seed: int, threads: int,
) -> Reconstruction:  # fmt: skip
    """Change the constants of a quantized graph, in place, so that it gives what the float graph gives.

    Args:
        quantized: with Q/DQ pairs.
        fitted: the float graph that it was written from.
        reference: the float graph whose outputs are right; its tensors have the same names.
        samples: calibration data.
        seconds: that it may take, about.
        bar: (what is done, steps) -> shows how far it is.
        rate_hz: sample rate, where the graph's output may be audio.
        seed: of pieces of samples and their order.
        threads: of ONNX Runtime and PyTorch.

    Raises:
        ConfigError: there is one sample only, of which nothing can be held back, or PyTorch does not load.
    """
    check_samples(samples)
    try:
        from pipeline.ptq.reconstruction.reconstruct import Effort, reconstruct
    except ImportError as error:  # a build for a graphics card whose libraries are missing
        raise ConfigError(f"mode.reconstruct=true: PyTorch is installed but does not load: {error}. {INSTALL}.") from error
    return reconstruct(
        quantized,
        fitted,
        reference,
        samples,
        Effort(seconds),
        bar=bar,
        rate_hz=rate_hz,
        seed=seed,
        threads=threads,
    )


def check_samples(samples: Sequence[Sample]) -> None:
    """Check that there is something to learn from, and something to hold back.

    Raises:
        ConfigError: there is one sample only.
    """
    if len(samples) < 2:
        raise ConfigError(
            "calibration.samples: mode.reconstruct=true needs 2 or more: some are held back, to decide what is kept."
        )


def notes_on_reconstruction(graph: str, found: Reconstruction) -> list[str]:
    """Return what was learned of a graph, in sentences."""
    kept = [part for part in found.parts if part.kept]
    layers = sum(part.layers for part in found.parts if part.name != "the whole")
    notes = [
        f"{graph}: {len(kept)} of {len(found.parts)} parts are better reconstructed ({found.seconds:.0f} s, {layers} layers)."
    ]
    notes += [f"{graph}: {_told(part)}." for part in found.parts[-1:]]
    return notes + [f"{graph}: {name}: not reconstructed: {why}." for name, why in found.left.items()]


def warnings_on_reconstruction(graph: str, found: Reconstruction) -> list[str]:
    """Return what a user must know: that there was not enough time, or nothing to learn."""
    if found.stopped_early:
        return [f"{graph}: mode.reconstruct_seconds ended the reconstruction; with more, the result may be better."]
    if not found.parts:
        return [f"{graph}: mode.reconstruct=true has changed nothing: {next(iter(found.left.values()), 'no weight is int8')}."]
    return []


def _told(part: ReconstructedPart) -> str:
    change = (
        f"{part.held_back_before:.3g} -> {part.held_back_after:.3g}" if part.kept else f"stays at {part.held_back_before:.3g}"
    )
    return f"{part.name}: {part.measure} on held-back calibration samples {change}"
