"""Compiled functions: the same numbers, also where the result of compiling cannot be kept."""

from numba.core import caching

from pipeline.calibration.numba_jit import compiled


def test_a_function_is_compiled_for_its_types():
    half = compiled("float64(float64)")(lambda x: x / 2)
    assert (half(3), half(3.5)) == (1.5, 1.75)


@compiled("int64(int64)")
def _next(x):
    return x + 1


@compiled("int64(int64)")
def _after_next(x):
    return _next(_next(x))


def test_it_calls_others_and_is_compiled_with_them_when_it_is_first_called(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("numba.njit", None)
        later = compiled("int64(int64)")(lambda x: 3 * x)
    assert later(2) == 6
    assert _after_next(1) == 3
    assert _next.__name__ == "_next"


def test_a_division_by_zero_is_that_of_floating_point_numbers():
    inverse = compiled("float64(float64)")(lambda x: 1 / x)
    assert inverse(0.0) == float("inf")


def test_a_function_is_compiled_where_no_folder_can_keep_it(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    double = compiled("int64(int64)")(lambda x: 2 * x)
    assert double(21) == 42
