"""Statistics that were collected once, found again by what they depend on.

The name of an entry is a hash of everything that could change it, so that an entry is never stale: a changed model, sample,
setting or library version looks for another name. An entry appears under its name only when it is complete (written beside
it, then renamed), and it holds a checksum of its content: one that is damaged is collected again.
"""

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pipeline.calibration import collect as engine
from pipeline.calibration.derived_tensors import around_layers, quantizable_tensors
from pipeline.calibration.statistics import Statistics
from pipeline.graph.large_models import is_large, without_weights
from pipeline.paths import cache_directory
from pipeline.sample import Sample

ENGINE_VERSION = 5  # to be raised with every change that changes statistics
MAGIC = b"speech-statistics\n"

logger = logging.getLogger(__name__)


def default_directory() -> Path:
    """Return where entries are kept by default."""
    return cache_directory() / "calibration"


def cached_statistics(
    model: onnx.ModelProto | Path,
    samples: Sequence[Sample] | Callable[[], Iterator[Sample]],
    *,
    needed: Collection[str] | None = None,
    without: Collection[str] = (),
    directory: Path | None = None,
    threads: int = 1,
    channel_axes: Mapping[str, int] | None = None,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Statistics:
    """Return the statistics of a graph's tensors over a calibration set, from the cache where it has them.

    Args:
        model: as `collect` takes it.
        samples: the calibration set, or a function that yields it; it is read once for its hash, and once more where the
            statistics have to be collected.
        needed: tensors whose statistics are wanted at least; None: every tensor that any mode may quantize. Where those that
            layers read and make suffice, all of these and nothing else are measured, so that any method, type or selection
            of layers finds what it needs in the same entry; all that any mode may quantize is measured otherwise, once.
        without: tensors that are not measured: those that hold NaN or infinity (`infinite_tensors`).
        directory: where entries are kept; None: `default_directory()`.
        threads: of ONNX Runtime.
        channel_axes: tensor -> axis along which its statistics are wanted as well.
        seed: of the graph's random operators.
        on_sample: called with the number of samples done, after each; not called where the cache has the statistics.

    Raises:
        ModelError, DataError: as `collect`.
    """
    graph = onnx.load(model) if isinstance(model, Path) else model
    axes = dict(channel_axes or {})
    stream = samples() if callable(samples) else samples
    content = fingerprint(graph, stream, repr((sorted(axes.items()), threads, seed)))
    measurable = [tensor for tensor in quantizable_tensors(graph) if tensor not in without]
    layers = around_layers(graph, measurable)
    choices = [measurable] if needed is None or not set(needed) <= set(layers) else [measurable, layers]

    def entry_of(tensors: Collection[str]) -> Path:
        name = hashlib.sha256(repr((content, sorted(tensors))).encode()).hexdigest()
        return (directory or default_directory()) / f"{name}.statistics"

    for tensors in choices:  # the larger set serves as well, where it is there already
        found = read_entry(entry_of(tensors))
        if found is not None:
            return found
    smallest = choices[-1]
    statistics = engine.collect(
        graph, samples, tensors=smallest, threads=threads, channel_axes=axes, seed=seed, on_sample=on_sample
    )
    try:
        write_entry(entry_of(smallest), statistics)
    except OSError as error:
        logger.warning("The statistics could not be cached in %s: %s", entry_of(smallest).parent, error)
    return statistics


def fingerprint(model: onnx.ModelProto, samples: Sequence[Sample] | Iterator[Sample], settings: str) -> str:
    """Return the sha256 of everything that statistics depend on, as hex digits."""
    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(f"{ENGINE_VERSION} {onnxruntime.__version__} {onnx.__version__} {np.__version__} {settings}".encode())
    if is_large(model):
        add(without_weights(model).SerializeToString(deterministic=True))
        for tensor in model.graph.initializer:
            add(tensor.SerializeToString(deterministic=True))
    else:
        add(model.SerializeToString(deterministic=True))
    for sample in samples:
        add(sample.id.encode())
        for name, array in sorted(sample.inputs.items()):
            add(f"{name} {array.dtype.str} {array.shape}".encode())
            add(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_entry(path: Path) -> Statistics | None:
    """Return what an entry holds, or None where there is none, or not what was once written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("The cached statistics %s cannot be read: %s", path, error)
        return None
    head, payload = content[: len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if head != MAGIC + hashlib.sha256(payload).digest():
        logger.warning("The cached statistics %s are damaged, and will be collected again.", path)
        return None
    return Statistics.load(io.BytesIO(payload))


def write_entry(path: Path, statistics: Statistics) -> None:
    """Write an entry, which appears under its name complete or not at all.

    It does not wait for the disk: what a crash of the machine leaves of it does not fit its checksum.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    statistics.save(buffer)
    payload = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + hashlib.sha256(payload).digest())
            file.write(payload)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
