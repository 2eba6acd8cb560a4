"""What runs ahead gives the same in the same order, opens everything once, and leaves nothing running."""

import threading
import time

import pytest

from pipeline import run_ahead
from pipeline.run_ahead import idle_cores, in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_each_is_computed_once(workers):
    seen = []

    def squared(number):
        time.sleep(0.002 * (number % 3))
        seen.append(number)
        return number * number

    with in_order(squared, range(20), threads=1, workers=workers) as results:
        assert list(results) == [number * number for number in range(20)]
    assert sorted(seen) == list(range(20))


def test_two_run_at_once_but_not_before_the_first_has_opened_what_they_use():
    both = threading.Barrier(2, timeout=30)
    threads = []

    def run(number):
        threads.append((number, threading.current_thread() is threading.main_thread()))
        if number in (1, 2):
            both.wait()
        return number

    with in_order(run, range(3), threads=1, workers=2) as results:
        assert next(results) == 0
        assert threads == [(0, True)], "nothing else has begun"
        assert list(results) == [1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_where_its_result_would_have_been_and_nothing_is_left_running(workers):
    running = threading.active_count()

    def failing(number):
        if number == 3:
            raise ValueError("three")
        return number

    found = []
    with pytest.raises(ValueError, match="three"), in_order(failing, range(9), threads=1, workers=workers) as results:
        found.extend(results)
    assert found == [0, 1, 2]
    assert threading.active_count() == running


def test_who_takes_some_results_only_leaves_nothing_running():
    done = []

    def run(number):
        time.sleep(0.01)
        done.append(number)
        return number

    with in_order(run, range(100), threads=1, workers=2) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
    count = len(done)
    assert count <= 6
    time.sleep(0.05)
    assert len(done) == count


def test_one_call_at_a_time_where_other_programs_keep_the_cores_busy(monkeypatch):
    monkeypatch.setattr(run_ahead.os, "sched_getaffinity", lambda _: range(4), raising=False)
    for others, idle in ((0.0, 4), (0.2, 4), (1.1, 3), (3.0, 1), (9.0, 1)):
        monkeypatch.setattr(run_ahead._load, "of_others", lambda others=others: others)
        assert idle_cores() == idle
