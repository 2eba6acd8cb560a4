"""voices.bin: the styles of the voices of Kokoro and KittenTTS, one for each voice and each length of a sentence."""

import zipfile
from pathlib import Path

import numpy as np

from pipeline.errors import ModelError
from pipeline.sample import Float32Array

KEY = "model.voices_path"


def read_styles(path: Path, rows: int, width: int, count: int | None) -> tuple[Float32Array, tuple[str, ...]]:
    """Return styles (voices, rows, width) and the names of the voices, where the file holds them.

    Args:
        path: raw float32 of all voices one after the other, as sherpa-onnx reads them, or an .npz with an array a voice.
        rows: lengths that a voice has a style for; 1: the same one for all.
        width: of a style, as the graph takes it.
        count: of voices, where the metadata says it.

    Raises:
        ModelError: there is no such file, or it does not hold that.
    """
    if not path.is_file():
        raise ModelError(f"{KEY}: there is no file {path}: the styles of the voices. Give the one that the model came with.")
    if zipfile.is_zipfile(path):
        return _of_arrays(path, width)
    size, of_one = path.stat().st_size, 4 * rows * width
    held = size / of_one
    if not size or size % of_one or (count is not None and held != count):
        raise ModelError(
            f"{KEY}: {path} has {size:,} bytes, the styles of {held:g} voices of {rows} x {width} float32"
            f"{f'; the metadata says {count} voices' if count is not None else ''}. It is not of this model, or damaged."
        )
    styles = np.fromfile(path, dtype="<f4").reshape(-1, rows, width)
    return _finite(styles, path), ()


def _of_arrays(path: Path, width: int) -> tuple[Float32Array, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: np.asarray(held[name], dtype=np.float32) for name in held.files}
        styles = np.stack([array.reshape(-1, width) for array in arrays.values()])
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{KEY}: {path} is no .npz with an array of styles (lengths, 1, {width}) for each voice: {error}"
        ) from error
    return _finite(styles, path), tuple(arrays)


def _finite(styles: Float32Array, path: Path) -> Float32Array:
    if not np.isfinite(styles).all():
        raise ModelError(f"{KEY}: {path} holds numbers that are not finite; it is not of this model, or damaged.")
    return styles
