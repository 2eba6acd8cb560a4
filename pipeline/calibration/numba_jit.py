"""Functions that Numba compiles: loops over many values, for which numpy would need several passes and copies.

They are compiled when they are first imported, which takes seconds, and found again by later processes.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(*signatures: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function for arguments of these types, to run without Python's lock. A division by zero gives inf or NaN."""

    def compile_(function: Callable[P, R]) -> Callable[P, R]:
        compiler = partial(numba.njit, list(signatures), nogil=True, error_model="numpy")
        try:
            found: Callable[P, R] = compiler(cache=True)(function)
        except RuntimeError:  # there is no folder that the result can be kept in
            found = compiler()(function)
        return found

    return compile_
