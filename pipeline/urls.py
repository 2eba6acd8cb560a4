"""URLs in the place of paths: which can be opened, the file system of fsspec that does, and one clear error where it fails."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.extras import how_to_install

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a single letter is a drive of Windows
LOCAL = ("file", "local")
WEB = ("http", "https")
CREDENTIALS = (
    "Credentials belong in the environment or in the files of the service's own tools (of S3: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or ~/.aws), or in fsspec's (FSSPEC_S3_KEY, or ~/.config/fsspec): settings are shown and kept."
)

IN_TEXT = re.compile(URL.pattern + r"([^\s,'\"\]}]*)")
PASSWORD = re.compile(r"[^/@\[\]:]*:(?!\d*(?:/|$))[^@]*@")  # a port is digits; a password that is not quoted may hold a slash
USER = re.compile(r"[^/?#]*@")
OWN_PARAMETERS = ("model.url", "tracking.uri")  # whose addresses may hold `?`
OWN_PLACES = {
    "tracking.uri": "Give it in MLFLOW_TRACKING_PASSWORD.",
    "model.url": "Settings are shown and kept: download the file by other means, and give model.path.",
}
SECRET_PARAMETER = re.compile(r"[?&;#][^=&;]*(?:sig|token|key|secret|passw|credential|auth)[^=&;]*=", re.IGNORECASE)

_asked: set[int] = set()  # file systems that this run has asked; fsspec keeps them


class AbsentError(DataError):
    """There is nothing at a URL."""


def is_url(text: object) -> bool:
    """Return whether a setting is a URL and no path."""
    return isinstance(text, str) and URL.match(text) is not None


def url_problem(url: str) -> str | None:
    """Return what is wrong with a URL, as a sentence that does not repeat its secrets; None: nothing is."""
    scheme, rest = url.split("://", 1)
    if "::" in url:
        return "URLs in URLs (`::`) are not opened; name the file itself."
    if (problem := _secret_in(scheme, rest)) is not None:
        return problem
    if scheme.lower() == "memory":
        return "memory:// is seen by one process alone, and is empty at its start. Name a place that jobs share."
    if {"..", "."} & set(rest.split("/")):
        return f"{url} holds `.` or `..`; name the place itself."
    return None


def refuse_secrets(overrides: list[str]) -> None:
    """Refuse settings that hold a password, before anything of the command line is written or shown.

    Args:
        overrides: as given, `key=value`.

    Raises:
        ConfigError: one does; or a directory that Hydra would make is a URL.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and is_url(value):
            raise ConfigError(
                f"{key}: {value} is a URL; runs are written to a directory. results.url copies them at their end."
            )
        key = key.lstrip("+")
        for scheme, rest in IN_TEXT.findall(value):
            if key == "tracking.uri" and scheme.lower() not in WEB:
                continue  # a database has its password in its address; it is not kept
            parameters = key in OWN_PARAMETERS or key.startswith("hydra.")
            if (problem := _secret_in(scheme, rest, parameters=parameters)) is not None:
                raise ConfigError(f"{key}: {problem.replace(CREDENTIALS, OWN_PLACES.get(key, CREDENTIALS))}")


def _secret_in(scheme: str, rest: str, *, parameters: bool = False) -> str | None:
    """Return what is wrong with a URL that holds a secret, as a sentence; None: it holds none.

    Args:
        scheme: what stands before `://`.
        rest: what stands behind it.
        parameters: `?` and `#` are allowed, but for names that signatures and tokens have.
    """
    web = scheme.lower() in WEB
    if PASSWORD.match(rest) or (web and USER.match(rest)):  # of the web, a name alone is a token
        return f"the URL holds a password. {CREDENTIALS}"
    if scheme.lower() in LOCAL:
        return None
    if SECRET_PARAMETER.search(rest) if parameters else "?" in rest or "#" in rest:
        return f"the URL holds `?` or `#`, behind which signatures and tokens stand. {CREDENTIALS}"
    return None


def ask_anew() -> None:
    """Let file systems forget the lists of files that they keep: a new run begins."""
    _asked.clear()


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        ConfigError: the URL cannot be used, or a package is missing.
    """
    if problem := url_problem(url):
        raise ConfigError(problem)
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError(f"{url}: URLs need fsspec: {how_to_install('urls')}") from error
    scheme = url.split("://", 1)[0]
    try:
        found, path = fsspec.core.url_to_fs(url)
        if id(found) not in _asked:
            found.invalidate_cache()  # of lists of files, of a run before
            _asked.add(id(found))
    except ImportError as error:
        raise ConfigError(f"{url}: {scheme}:// needs a package that is not installed: {_words(error)}") from error
    except ValueError as error:
        known = scheme in fsspec.available_protocols()
        raise ConfigError(f"{url}: {_words(error) if known else f'fsspec knows no file system {scheme}://.'}") from error
    except Exception as error:
        raise _told(error, url) from error
    return found, path


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Make one clear error of whatever a file system raises; interruptions and our own pass.

    Raises:
        AbsentError: there is nothing.
        DataError: the server cannot be reached, or refuses.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # of this machine
            raise
        # File systems share no base class of errors: botocore's, aiohttp's, paramiko's.
        raise _told(error, url) from error


def _told(error: Exception, url: str) -> DataError:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, FileNotFoundError):
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            return _told(error.__cause__, url)  # so fsspec's http says of a server that is down
        return AbsentError(f"{url}: there is nothing. Check the bucket, or host, and the path.")
    if isinstance(error, PermissionError) or names & {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"}:
        return DataError(
            f"{url}: the server refuses ({_words(error)}). {CREDENTIALS} Of a name that is wrong, some say the same."
        )
    return DataError(f"{url}: cannot be reached: {_words(error)}. Is the server up, and its address right?")


def _words(error: BaseException) -> str:
    return re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")
