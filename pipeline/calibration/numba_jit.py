"""Functions that Numba compiles: loops over many values, for which numpy would need several passes and copies.

They are compiled when they are first called, which takes seconds, and found again by later processes; a run that calibrates
nothing does without Numba, which takes longer to import than ONNX Runtime. It is installed on request (the extra `fast`).
Without it, each function is replaced by one of numpy that gives the same numbers, or runs as it is written: the ranges are the
same, and take longer.
"""

import importlib.util
import logging
import threading
from collections.abc import Callable
from functools import cache, partial, update_wrapper
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from pipeline.extras import how_to_install

P = ParamSpec("P")
R = TypeVar("R")

HAS_NUMBA = importlib.util.find_spec("numba") is not None

log = logging.getLogger(__name__)
_compiling = threading.RLock()  # calibration measures in several threads


class Compiled(Generic[P, R]):
    """A function that is compiled when it is first called, and before it those that it calls."""

    def __init__(self, function: Callable[P, R], signatures: tuple[str, ...]) -> None:
        """Take the function as it is written, and the types of its arguments."""
        self._function, self._signatures = cast(FunctionType, function), signatures
        self._machine_code: Callable[P, R] | None = None
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what was compiled."""
        return (self._machine_code or self.compile())(*args, **kwargs)

    def compile(self) -> Callable[P, R]:
        """Compile the function, unless that was done, or load what an earlier process has compiled."""
        with _compiling:
            if self._machine_code is None:
                self._machine_code = self._compile()
        return self._machine_code

    def _compile(self) -> Callable[P, R]:
        import numba

        written, known = self._function, dict(self._function.__globals__)
        for name in written.__code__.co_names:  # Numba knows its own functions only
            if isinstance(called := known.get(name), Compiled):
                known[name] = called.compile()
        function = FunctionType(written.__code__, known, written.__name__, written.__defaults__, written.__closure__)
        function.__qualname__, function.__module__ = written.__qualname__, written.__module__
        compiler = partial(numba.njit, list(self._signatures), nogil=True, error_model="numpy")
        try:
            found: Callable[P, R] = compiler(cache=True)(function)
        except RuntimeError:  # there is no folder that the result can be kept in
            found = compiler()(function)
        return found


def compiled(*signatures: str, otherwise: Callable[..., Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function for arguments of these types, to run without Python's lock. A division by zero gives inf or NaN.

    Args:
        signatures: the types, as Numba writes them.
        otherwise: what takes the function's place where Numba is not installed; None: the function itself, interpreted.
    """

    def compile_(function: Callable[P, R]) -> Callable[P, R]:
        if HAS_NUMBA:
            return Compiled(function, signatures)
        instead: Callable[P, R] = otherwise or function
        return instead

    return compile_


@cache
def note_if_slow() -> None:
    """Say once that calibration takes longer than it must."""
    if not HAS_NUMBA:
        log.warning("Calibration is slower than it could be, since numba is not installed: %s.", how_to_install("fast"))
