"""The name of a model: what its files are called, where they are the user's."""

import re
from pathlib import Path

from pipeline.paths import portable, resolve_path
from pipeline.urls import is_url

GENERIC = frozenset({"model", "encoder", "vocoder", "generator", "acoustic", "onnx"})  # says nothing: the folder's name does
ARCHIVES = re.compile(r"(\.tar\.(bz2|gz|xz)|\.tgz|\.zip|\.onnx)$", flags=re.IGNORECASE)
KEPT = re.compile(r"[^\w.+@-]+")  # letters and digits of any script stay
SHIPPED = ("data", "models")
LONGEST = 60  # characters


def model_name(option: str, path: str | None = None, folder: str | None = None, url: str | None = None) -> str:
    """Return the name of a model in paths and reports, as `${model_name:...}` in `conf/model/` asks for it.

    Args:
        option: of the group `model`: the name of a model that ships, and where none of the places tells.
        path: `model.path`.
        folder: `model.dir`.
        url: `model.url`.
    """
    if url:
        found = ARCHIVES.sub("", url.partition("?")[0].rstrip("/").rpartition("/")[2])
    elif folder:
        found = folder.rstrip("/").rpartition("/")[2] if is_url(folder) else resolve_path(folder).resolve().name
    elif path and not is_shipped(path):
        found = _stem(path)
    else:
        return option
    return KEPT.sub("_", found).strip("._")[:LONGEST] or option


def is_shipped(path: str) -> bool:
    """Say whether a file is one of the models of this project."""
    return not is_url(path) and Path(portable(resolve_path(path))).parts[:2] == SHIPPED


def _stem(path: str) -> str:
    """Return the name of a file without its ending, or that of its folder where it says nothing."""
    given = Path(path)
    if given.stem in GENERIC and given.parent.name not in ("", ".", ".."):
        return given.parent.name
    return given.stem
