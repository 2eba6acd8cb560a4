"""Functions that Numba compiles: loops over many values, for which numpy would need several passes and copies.

They are compiled once, at the first import, and found again by later processes.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(*signatures: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function for arguments of these types, to run without Python's lock. A division by zero gives inf or NaN."""
    compile_: Callable[[Callable[P, R]], Callable[P, R]] = numba.njit(
        list(signatures), nogil=True, cache=True, error_model="numpy"
    )
    return compile_
