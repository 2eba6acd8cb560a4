"""Where samples come from: a manifest of utterances, an .npz of arrays, or seeded noise; and the check of each one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import soundfile

from pipeline.config import SampleRateMismatch
from pipeline.errors import DataError, did_you_mean
from pipeline.metrics.audio import resample
from pipeline.samples import Sample

MANIFEST_KEYS = ("id", "text", "tokens", "audio")
LABEL_KEYS = ("voice", "kind", "noisy")  # known, kept for the report, used by no model


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest.

    Attributes:
        id: unique in its manifest.
        text: what is said, in lower-case words.
        tokens: the ids that the acoustic model reads.
        audio: the recording, an absolute path.
    """

    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    audio: Path | None = None


def read_manifest(path: Path, key: str, limit: int) -> list[Utterance]:
    """Read at most `limit` utterances of a JSON-lines manifest; audio paths are relative to it.

    Args:
        path: the manifest.
        key: the config key that names it, for messages.
        limit: how many at most.

    Raises:
        DataError: the file is missing, empty, or a line is not what it should be.
    """
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}. It is a JSON-lines manifest with the keys {MANIFEST_KEYS}.")
    utterances: list[Utterance] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or len(utterances) == limit:
            continue
        utterance = _utterance(line, f"{key}: {path}, line {number}", path.parent)
        if utterance.id in seen:
            raise DataError(f"{key}: {path}, line {number}: the id {utterance.id!r} is there twice.")
        seen.add(utterance.id)
        utterances.append(utterance)
    if not utterances:
        raise DataError(f"{key}: {path} is empty; at least one utterance is needed.")
    return utterances


def _utterance(line: str, where: str, folder: Path) -> Utterance:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}).") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise DataError(f'{where}: expected an object with an "id", found {line[:60]!r}.')
    known = (*MANIFEST_KEYS, *LABEL_KEYS)
    for name in entry:
        if name not in known:
            raise DataError(f"{where}: unknown key {name!r}.{did_you_mean(name, known)}")
    tokens = entry.get("tokens")
    if tokens is not None and not (isinstance(tokens, list) and all(isinstance(token, int) for token in tokens)):
        raise DataError(f"{where}: tokens must be a list of integers.")
    audio = folder / entry["audio"] if "audio" in entry else None
    return Utterance(entry["id"], entry.get("text"), None if tokens is None else tuple(tokens), audio)


def read_audio(path: Path, sample_rate_hz: int, mismatch: SampleRateMismatch, warnings: list[str]) -> npt.NDArray[np.float32]:
    """Read mono audio as float32 (samples,) in [-1, 1] at `sample_rate_hz`.

    Raises:
        DataError: the file is missing, no audio, empty, not mono, not finite, or of another rate where that is refused.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such audio file.")
    try:
        audio, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not an audio file that libsndfile reads ({error}). Use WAV or FLAC.") from error
    if audio.ndim != 1:
        raise DataError(f"{path}: {audio.shape[1]} channels; the models take mono.")
    if audio.size == 0:
        raise DataError(f"{path}: empty; at least one sample of audio is needed.")
    if not np.isfinite(audio).all():
        raise DataError(f"{path}: holds NaN or Inf.")
    if rate == sample_rate_hz:
        return np.asarray(audio, dtype=np.float32)
    if mismatch is SampleRateMismatch.refuse:
        raise DataError(
            f"{path}: {rate} Hz, but the model takes {sample_rate_hz} Hz. Convert the file, or let it be resampled with "
            "calibration.on_sample_rate=resample and evaluation.on_sample_rate=resample."
        )
    warning = f"{path.parent}: audio of {rate} Hz was resampled to the model's {sample_rate_hz} Hz."
    if warning not in warnings:
        warnings.append(warning)
    return resample(np.asarray(audio, dtype=np.float32), rate, sample_rate_hz)


def read_arrays(path: Path, key: str, limit: int) -> list[Sample]:
    """Read at most `limit` samples from an .npz whose arrays are named `<sample>/<input name>`, in the file's order.

    Raises:
        DataError: the file is missing, no .npz, empty, or an array's name has no sample.
    """
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}. It is an .npz whose arrays are named <sample>/<input name>.")
    samples: dict[str, dict[str, npt.NDArray[np.generic]]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                sample, slash, input_name = name.partition("/")
                if not (sample and slash and input_name):
                    raise DataError(f"{key}: {path}: the array {name!r} is not named <sample>/<input name>.")
                if sample not in samples and len(samples) == limit:
                    break
                samples.setdefault(sample, {})[input_name] = arrays[name]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{key}: {path} is no .npz that numpy reads ({error}).") from error
    if not samples:
        raise DataError(f"{key}: {path} holds no arrays; at least one sample is needed.")
    return [Sample(name, inputs) for name, inputs in samples.items()]


def random_samples(inputs: Sequence[onnx.ValueInfoProto], count: int, length: int, seed: int) -> list[Sample]:
    """Return seeded noise shaped by a graph's inputs: what people calibrate on who have no data.

    Floats are standard normal, integers are drawn from 1 to 7 (small enough for any token table), and an integer input
    whose name speaks of a length gets the length itself. An axis whose size the graph leaves open gets 1 if it is the
    first, else `length`.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for value in inputs:
            dtype, dims = dtype_of(value), dims_of(value)
            shape = [size or (1 if axis == 0 else length) for axis, size in enumerate(dims)]
            if np.issubdtype(dtype, np.floating):
                arrays[value.name] = rng.standard_normal(shape).astype(dtype)
            elif np.issubdtype(dtype, np.integer) and "len" in value.name.lower():
                arrays[value.name] = np.full(shape, length, dtype=dtype)
            elif np.issubdtype(dtype, np.integer):
                arrays[value.name] = rng.integers(1, 8, shape).astype(dtype)
            elif dtype == np.bool_:
                arrays[value.name] = np.ones(shape, dtype=np.bool_)
            else:
                raise DataError(
                    f"calibration=random: the input {value.name!r} is of type {dtype}, for which there is no noise. "
                    "Give real samples with calibration=arrays."
                )
        samples.append(Sample(f"random_{number}", arrays))
    return samples


def check_samples(samples: Sequence[Sample], inputs: Sequence[onnx.ValueInfoProto], key: str) -> None:
    """Check each sample against the graph's inputs.

    Raises:
        DataError: names the sample and the input that is missing, unknown, of a wrong type or shape, or not finite.
    """
    declared = {value.name: value for value in inputs}
    for sample in samples:
        where = f"{key}: sample {sample.id!r}"
        if missing := sorted(set(declared) - set(sample.inputs)):
            raise DataError(f"{where} lacks the input {missing[0]!r}. The model takes {', '.join(declared)}.")
        for name, array in sample.inputs.items():
            if name not in declared:
                raise DataError(f"{where} has an input {name!r} that the model has not.{did_you_mean(name, declared)}")
            _check_array(array, declared[name], f"{where}, input {name!r}")


def _check_array(array: npt.NDArray[np.generic], value: onnx.ValueInfoProto, where: str) -> None:
    dtype, dims = dtype_of(value), dims_of(value)
    if array.dtype != dtype:
        raise DataError(f"{where}: of type {array.dtype}, but the model takes {dtype}.")
    fits = len(dims) == array.ndim and all(size in (None, found) for size, found in zip(dims, array.shape, strict=True))
    if not fits:
        expected = "[" + ", ".join("any" if size is None else str(size) for size in dims) + "]"
        raise DataError(f"{where}: of shape {list(array.shape)}, but the model takes {expected}.")
    if array.size == 0:
        raise DataError(f"{where}: of shape {list(array.shape)}, which is empty.")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{where}: {array[position]} at {position}; only finite values can be used.")


def dtype_of(value: onnx.ValueInfoProto) -> np.dtype[np.generic]:
    """Return the numpy type of a graph's input."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def dims_of(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the shape of a graph's input; None for an axis whose size is left open."""
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]


@cache
def _project_root() -> Path:
    return Path(__file__).resolve().parent.parent


def find(path: str) -> Path:
    """Return the absolute path of a file that a setting names: relative to the working directory, else to the project."""
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    here = given.absolute()
    return here if here.exists() or not (_project_root() / given).exists() else _project_root() / given
