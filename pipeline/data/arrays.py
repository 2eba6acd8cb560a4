"""Arrays of the user, and the check of every sample against what the graph takes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.npyio import NpzFile

from pipeline.errors import ConfigError, DataError, did_you_mean
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.limits import MEGABYTE, limits
from pipeline.paths import near_files
from pipeline.sample import Sample


def read_arrays(path: Path, key: str, limit: int) -> list[Sample]:
    """Read at most `limit` samples from an .npz whose arrays are named `<sample>/<input name>`, in the file's order.

    Raises:
        DataError: the file is missing, not an .npz, empty, a sample is too large, or an array's name has no sample.
    """
    if not path.is_file():
        raise DataError(
            f"{key}: there is no file {path}. It is an .npz whose arrays are named <sample>/<input name>.{near_files(path)}"
        )
    samples: dict[str, dict[str, npt.NDArray[np.generic]]] = {}
    sizes: Counter[str] = Counter()
    try:
        with _opened(path) as arrays:
            assert arrays.zip is not None
            held = {member.filename.removesuffix(".npy"): member.file_size for member in arrays.zip.infolist()}
            for name in arrays.files:
                sample, slash, input_name = name.partition("/")
                if not (sample and slash and input_name):
                    raise DataError(f"{key}: {path}: the array {name!r} is not named <sample>/<input name>.")
                if sample not in samples and len(samples) == limit:
                    continue  # further on, a file that was written input by input holds more of the samples before
                sizes[sample] += held[name]  # unpacked; no more than that is read
                if sizes[sample] > limits().sample_mb * MEGABYTE:
                    raise DataError(
                        f"{key}: {path}: the sample {sample!r} has {sizes[sample] // MEGABYTE} MB or more, more than "
                        f"limits.sample_mb={limits().sample_mb}. Cut it, or raise the limit."
                    )
                samples.setdefault(sample, {})[input_name] = arrays[name]
    except DataError:
        raise
    except Exception as error:  # what numpy, zipfile, zlib and tokenize raise where a file is damaged has no common base
        raise DataError(f"{key}: {path} is not an .npz that numpy reads ({error}).") from error
    if not samples:
        raise DataError(f"{key}: {path} holds no arrays; at least one sample is needed.")
    return [Sample(name, inputs) for name, inputs in samples.items()]


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    with path.open("rb") as stream:  # numpy leaves a file open that is no archive after all
        found = np.load(stream, allow_pickle=False)
        if not isinstance(found, NpzFile):
            raise ValueError("it holds one array, as an .npy does")
        yield found


def read_labels(path: Path) -> npt.NDArray[np.integer]:
    """Read an .npy of one class per sample.

    Raises:
        DataError: the file is missing, or not an .npy of one axis of integers.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except Exception as error:  # see `read_arrays`
        raise DataError(f"evaluation.labels: {path} is not an .npy that numpy reads ({error}).") from error
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"evaluation.labels: {path} must hold one integer class per sample.")
    return labels


def check_samples(samples: Sequence[Sample], inputs: Sequence[onnx.ValueInfoProto], key: str) -> None:
    """Check each sample against the graph's inputs.

    One of several inputs may be empty, as a cache is at the first step.

    Raises:
        DataError: names the sample and the input that is missing, unknown, of a wrong type or shape, or not finite; or all
            that the sample holds is empty.
    """
    declared = {value.name: value for value in inputs}
    for sample in samples:
        where = f"{key}: sample {sample.id!r}"
        if missing := sorted(set(declared) - set(sample.inputs)):
            raise DataError(f"{where} lacks the input {missing[0]!r}. The model takes {', '.join(declared)}.")
        for name, array in sample.inputs.items():
            if name not in declared:
                raise DataError(f"{where} has an input {name!r} that the model does not have.{did_you_mean(name, declared)}")
            _check_array(array, declared[name], f"{where}, input {name!r}")
        if sample.inputs and not sample.size:
            name, array = next(iter(sample.inputs.items()))
            raise DataError(f"{where}, input {name!r}: of shape {list(array.shape)}, which is empty, as all inputs are.")


def check_sequence(sample: Sample, steps: int, label: int | None, key: str) -> None:
    """Check what is given of a sequence beyond its first step.

    Args:
        sample: the whole sequence.
        steps: how many it has.
        label: its class, if it has one.
        key: the setting that names its set.

    Raises:
        ConfigError: it has a class: that is of one call.
        DataError: a value is not finite.
    """
    if label is not None:
        raise ConfigError(f"evaluation.labels: a class is of a single call, but sample {sample.id!r} is of {steps} steps.")
    for name, array in sample.inputs.items():
        _check_finite(array, f"{key}: sample {sample.id!r}, input {name!r}")


def _check_array(array: npt.NDArray[np.generic], value: onnx.ValueInfoProto, where: str) -> None:
    dtype, dims = dtype_of(value), dims_of(value)
    text = dtype.kind == "O" and array.dtype.kind in "OSU"  # numpy has a type for each length of text, ONNX has one
    if array.dtype != dtype and not text:
        raise DataError(f"{where}: of type {array.dtype}, but the model takes {'text' if dtype.kind == 'O' else dtype}.")
    if dims is not None:
        fits = len(dims) == array.ndim and all(size in (None, found) for size, found in zip(dims, array.shape, strict=True))
        if not fits:
            expected = "[" + ", ".join("any" if size is None else str(size) for size in dims) + "]"
            raise DataError(f"{where}: of shape {list(array.shape)}, but the model takes {expected}.")
    _check_finite(array, where)


def _check_finite(array: npt.NDArray[np.generic], where: str) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        wrong = np.argwhere(~(np.isfinite(array) | (array == -np.inf)))  # a mask that is added holds minus infinity
        if len(wrong):
            position = tuple(int(i) for i in wrong[0])
            raise DataError(f"{where}: {array[position]} at {position}; only finite values, and -inf in masks, can be used.")
