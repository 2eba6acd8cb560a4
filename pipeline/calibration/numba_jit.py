"""Functions that Numba compiles: loops over many values, for which numpy would need several passes and copies.

They are compiled when they are first imported, which takes seconds, and found again by later processes. Numba is installed on
request (the extra `fast`). Without it, each function is replaced by one of numpy that gives the same numbers, or runs as it is
written: the ranges are the same, and take longer.
"""

import importlib.util
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from pipeline.extras import how_to_install

P = ParamSpec("P")
R = TypeVar("R")

HAS_NUMBA = importlib.util.find_spec("numba") is not None

log = logging.getLogger(__name__)


def compiled(*signatures: str, otherwise: Callable[..., Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function for arguments of these types, to run without Python's lock. A division by zero gives inf or NaN.

    Args:
        signatures: the types, as Numba writes them.
        otherwise: what takes the function's place where Numba is not installed; None: the function itself, interpreted.
    """

    def compile_(function: Callable[P, R]) -> Callable[P, R]:
        if not HAS_NUMBA:
            instead: Callable[P, R] = otherwise or function
            return instead
        import numba

        compiler = partial(numba.njit, list(signatures), nogil=True, error_model="numpy")
        try:
            found: Callable[P, R] = compiler(cache=True)(function)
        except RuntimeError:  # there is no folder that the result can be kept in
            found = compiler()(function)
        return found

    return compile_


@cache
def note_if_slow() -> None:
    """Say once that calibration takes longer than it must."""
    if not HAS_NUMBA:
        log.warning("Calibration is slower than it could be, since numba is not installed: %s.", how_to_install("fast"))
