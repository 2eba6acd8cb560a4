"""Files and folders at URLs that fsspec opens, such as s3://bucket/model.onnx: a local copy of what is there now.

Copies lie in the cache, under names made of the URL and of what the server says of the version (ETag, times, size), so that a
file that has changed is another copy. They are written beside and renamed: jobs may fetch the same file at once.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.limits import MEGABYTE, limits
from pipeline.operator_count import refuse_too_many
from pipeline.urls import LOCAL, AbsentError, ask_anew, file_system, telling

log = logging.getLogger(__name__)

MOST_FILES = 100_000  # in a folder
ATTEMPTS = 3  # at a file that changes while it is copied
BESIDE = ("tokens.txt", "lexicon.txt", "am.mvn")
"""What adapters look for beside an ONNX file, and `<file>.json`, of Piper."""
OF_CONTENT = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "md5", "checksum", "generation")
OF_TIME = ("LastModified", "last_modified", "updated", "modified", "mtime", "created")
"""What file systems call that which changes with a file. All of what they say would do less: some count when it was read."""
OnProgress = Callable[[int, int | None], None]
Bars = Callable[[str], AbstractContextManager[OnProgress]]
"""title -> what is told (bytes so far, bytes in all)."""

_copies: dict[str, Path | DataError] = {}  # of this run: what is at a URL is asked once
_origins: dict[Path, str] = {}  # the directory of a copy -> the URL of the folder that it came from
_bars: list[Bars] = [lambda title: nullcontext(lambda done, total: None)]


@contextmanager
def copying(bars: Bars) -> Iterator[None]:
    """Show copies that are made meanwhile."""
    _bars.append(bars)
    try:
        yield
    finally:
        _bars.pop()


def ask_again() -> None:
    """Forget what was at URLs: a new run begins."""
    _copies.clear()
    ask_anew()


def local_copy(url: str, cache: Path) -> Path:
    """Return the copy of the file or the folder at a URL, as it is there now; it is made where there is none.

    An ONNX file brings its external data, and what adapters look for beside it.

    Args:
        url: of any file system of fsspec.
        cache: the directory that keeps copies.

    Raises:
        ConfigError: the URL cannot be used, or a package is missing.
        AbsentError: there is nothing.
        DataError: the server cannot be reached, refuses, or what is there cannot be kept in files.
    """
    if url.split("://", 1)[0].lower() in LOCAL:
        return Path(unquote(urlsplit(url).path))
    url = url.rstrip("/")
    found = _copies.get(url)
    if found is None:
        try:
            found = _copy(url, cache)
        except DataError as error:
            found = error
        _copies[url] = found
    if isinstance(found, DataError):
        raise found
    return found


def origin_of(file: Path) -> str | None:
    """Return the URL that a file, or a folder, is a copy of; None: it is none."""
    place = next((folder for folder in (file, *file.parents) if folder in _origins), None)
    if place is None:
        return None
    inner = file.relative_to(place).as_posix()
    return _origins[place] if inner == "." else f"{_origins[place]}/{inner}"


def beside(folder: Path, name: str, cache: Path) -> Path:
    """Return the file that something in a folder names; where the folder is a copy, the copy of that file.

    Raises:
        DataError: it would be outside of a folder at a URL.
    """
    url = origin_of(folder)
    if url is None or (folder / name).is_file():
        return folder / name
    if not _stays_inside(name):
        raise DataError(f"{url}: names {name!r}, which leads out of it. Beside files at URLs, name what lies below them.")
    try:
        return local_copy(f"{url}/{PurePosixPath(name).as_posix()}", cache)
    except AbsentError:
        return folder / name  # whoever reads it says so


def _version(info: Mapping[str, Any]) -> str | None:
    """Return what changes with a file; None: the server says nothing that would."""
    content, times = ({name: str(info[name]) for name in names if info.get(name)} for names in (OF_CONTENT, OF_TIME))
    told = content or times  # lists of files give times in finer steps than a file's own header
    return json.dumps({**told, "size": info.get("size")}, sort_keys=True) if told else None


def _stays_inside(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not {"", ".", ".."} & set(parts) and ":" not in parts[0] and "\0" not in name


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _copy(url: str, cache: Path) -> Path:
    system, path = file_system(url)
    name = url.rpartition("/")[2]
    if not _stays_inside(name):
        raise ConfigError(f"{url}: no file or folder is named.")
    with telling(url):
        info = system.info(path)
        if info.get("type") == "directory":
            return _folder(system, path, url, cache) / name
    file = _file(system, path, url, cache)
    return _model(file, url, cache) if name.endswith(".onnx") else file


def _file(system: Any, path: str, url: str, cache: Path) -> Path:  # noqa: ANN401  a file system of fsspec
    """Return the copy of one file, in a directory of its own."""
    folder, _, name = url.rpartition("/")
    for _ in range(ATTEMPTS):
        with telling(url):
            info = system.info(path)
        version, size = _version(info), info.get("size")
        if name.endswith(".onnx") and size is not None and size > limits().model_mb * MEGABYTE:
            raise ModelError(f"limits.model_mb: {limits().model_mb}, but {url} has {-(-size // MEGABYTE)} MB.")
        place = cache / _digest(url, version or secrets.token_hex())
        if not place.is_dir():
            with _staged(place) as staged:
                _download(system, path, staged / name, url, size)
                if version is None:
                    with (staged / name).open("rb") as stream:
                        place = cache / _digest(url, hashlib.file_digest(stream, "sha256").hexdigest())
                elif not _is_still(system, path, url, version):
                    continue
                _publish(staged, place)
        _origins[place] = folder
        return place / name
    raise DataError(f"{url}: changes while it is copied, {ATTEMPTS} times in a row. Copy it to a place of its own.")


def _is_still(system: Any, path: str, url: str, version: str) -> bool:  # noqa: ANN401
    with telling(url):
        with suppress(AttributeError):
            system.invalidate_cache()
        return _version(system.info(path)) == version


def _download(system: Any, path: str, target: Path, url: str, size: int | None) -> None:  # noqa: ANN401
    from fsspec.callbacks import Callback

    log.info("copy %s%s", url, "" if size is None else f" ({size / MEGABYTE:.1f} MB)")
    with _bars[-1](f"copy {target.name}") as on_progress, telling(url):
        told = Callback(size=size, hooks={"bars": lambda total, done, **_: on_progress(done, total)})
        system.get_file(path, str(target), callback=told)
    if size is not None and target.stat().st_size != size:
        raise DataError(f"{url}: {target.stat().st_size} of {size} bytes came. Try again.")


@contextmanager
def _staged(place: Path) -> Iterator[Path]:
    """Give a directory beside a place, gone afterwards."""
    staged = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    staged.mkdir(parents=True)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _publish(staged: Path, place: Path) -> None:
    try:
        staged.rename(place)
    except OSError:
        if not place.is_dir():  # another job was faster, with the same
            raise


def _together(files: Mapping[str, Path], folder: str, cache: Path) -> Path:
    """Return a directory with copies under their names in a folder at a URL."""
    place = cache / _digest(folder, *(f"{name}\t{file.parent.name}" for name, file in sorted(files.items())))
    if not place.is_dir():
        with _staged(place) as staged:
            for name, file in files.items():
                target = staged / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)  # no link: onnx takes weights with two names for an attack
            _publish(staged, place)
    _origins[place] = folder
    return place


def _folder(system: Any, path: str, url: str, cache: Path) -> Path:  # noqa: ANN401
    """Return a directory that holds the copy of a folder, whole."""
    folder, _, own = url.rpartition("/")
    root = path.rstrip("/")
    found = [each for each in system.find(path) if not each.endswith("/") and each.rstrip("/") != root]
    names = {each: each[len(root) :].removeprefix("/") for each in found}
    if not names:
        raise AbsentError(f"{url}: there is nothing. Check the bucket, or host, and the path.")
    if len(names) > MOST_FILES:
        raise DataError(f"{url}: holds {len(names)} files, more than {MOST_FILES}. Name a smaller folder.")
    holding = {str(parent) for name in names.values() for parent in PurePosixPath(name).parents}
    for each, name in names.items():
        if not each.startswith(f"{root}/") or not _stays_inside(name):
            raise DataError(f"{url}: holds the name {name!r}, which leads out of it. Nothing of it is copied.")
        if name in holding:
            raise DataError(f"{url}: holds {name!r} as a file and as a folder, which no local folder can. Rename one.")
    return _together(
        {f"{own}/{name}": _file(system, each, f"{url}/{name}", cache) for each, name in names.items()}, folder, cache
    )


def _model(file: Path, url: str, cache: Path) -> Path:
    """Return an ONNX file with what belongs to it beside it."""
    folder = url.rpartition("/")[0]
    needed = [name for name in _external(file) if _stays_inside(name)]  # of others, loading the model tells
    files = {file.name: file}
    for name in dict.fromkeys([*needed, *BESIDE, f"{file.name}.json"]):
        there = f"{folder}/{name}"
        system, path = file_system(there)
        try:
            files[name] = _file(system, path, there, cache)
        except AbsentError as error:
            if name in needed:
                raise AbsentError(f"{url}: its weights in {name!r} are not beside it: {error}") from error
        except DataError:  # one that may list nothing is told of what is absent that it may not be read
            if name in needed:
                raise
    return _together(files, folder, cache) / file.name if len(files) > 1 else file


def _external(file: Path) -> list[str]:
    """Return the names of the files that hold the weights of an ONNX file; of what is none, nothing."""
    import onnx
    from google.protobuf.message import DecodeError, Message

    def tensors(message: Message) -> Iterator[onnx.TensorProto]:
        for field, value in message.ListFields():
            if field.message_type is not None:
                for part in [value] if isinstance(value, Message) else value:
                    yield from [part] if isinstance(part, onnx.TensorProto) else tensors(part)

    refuse_too_many(file)
    try:
        model = onnx.load(file, load_external_data=False)
    except (DecodeError, ValueError):
        return []
    return sorted(
        {
            PurePosixPath(entry.value).as_posix()
            for tensor in tensors(model)
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )
