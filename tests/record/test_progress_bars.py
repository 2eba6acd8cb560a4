"""How far a run is: totals, estimates, a line now and then where no bars can be drawn."""

import io
import logging
import multiprocessing
import time

import pytest
from rich.console import Console
from rich.progress import Task

from pipeline.record.progress_bars import ProgressBars, duration, how_far


@pytest.fixture
def pipe():
    """Return a console that is no terminal."""
    return Console(file=io.StringIO(), width=80)


@pytest.fixture
def lines(caplog):
    """Return a function that gives the lines that were told so far."""
    caplog.set_level(logging.INFO, logger="pipeline")
    return lambda: [record.getMessage() for record in caplog.records]


def task(completed, total, elapsed, **fields):
    """Return a task that began some seconds ago."""
    found = Task(0, "a task", total, completed, _get_time=lambda: elapsed, fields={"unit": "samples"} | fields)
    found.start_time = 0.0
    return found


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (task(12, 50, 12.6), "12 of 50 samples, about 40 s left"),
        (task(1, 10, 60.0), "1 of 10 samples, about 9 min left"),
        (task(9, 10, 95.0, moved_at=90.0), "9 of 10 samples, about 5 s left"),
        (task(9, 10, 300.0, moved_at=90.0), "9 of 10 samples, 5 min; the next takes longer than those before"),
        (task(0, 50, 30.0), "0 of 50 samples"),
        (task(1, 50, 0.1), "1 of 50 samples"),
        (task(50, 50, 60.0), "50 of 50 samples"),
        (task(0, None, 30.0), "30 s"),
        (task(0, None, 30.0, limit_seconds=300.0), "30 s of at most 5 min"),
        (task(0, None, 310.0, limit_seconds=300.0), "5 min, past the limit of 5 min"),
        (task(7, None, 30.0, unit="MB"), "7 MB, 30 s"),
    ],
)
def test_a_task_says_how_much_is_done_of_how_much_and_how_long_the_rest_takes(how, told):
    assert how_far(how) == told


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (7500, "2 h 05 min")]
)
def test_a_time_is_told_in_the_unit_that_suits_it(seconds, shown):
    assert duration(seconds) == shown


def wait_for(lines, count):
    """Wait until so many lines are told; the test fails by its assertion where they never are."""
    for _ in range(10_000):
        if len(lines()) >= count:
            return
        time.sleep(0.01)


def test_in_a_pipe_the_innermost_task_is_told_in_a_line_again_and_again(pipe, lines):
    bars = ProgressBars(pipe, line_seconds=0.01)
    with bars, bars.bar("quantize", None), bars.bar("calibrate encoder", 4) as advance:
        advance()
        wait_for(lines, 2)
    assert lines()[-1].startswith("calibrate encoder: 1 of 4 samples")
    assert not pipe.file.getvalue()


def test_nothing_is_told_after_the_end_or_in_a_run_that_is_shorter_than_the_pause(pipe, lines):
    bars = ProgressBars(pipe)
    with bars, bars.bar("evaluate", 4) as advance:
        advance()
    assert lines() == []


def test_a_bar_takes_the_place_of_the_one_that_it_is_a_part_of_and_breaks_where_the_terminal_is_narrow():
    terminal = Console(file=io.StringIO(), width=60, force_terminal=True)
    bars = ProgressBars(terminal)
    with bars, bars.bar("quantize", None), bars.status("search encoder", 300.0) as tell:
        tell("measuring what each node loses, which takes long")
        bars._progress.refresh()
    drawn = terminal.file.getvalue()
    for word in ("search encoder:", "measuring", "loses", "takes long", "of at most 5 min"):
        assert word in drawn
    assert "quantize" not in drawn.rpartition("search")[2]
    assert "…" not in drawn


def test_a_bar_tells_its_percentage():
    terminal = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    bars = ProgressBars(terminal)
    with bars, bars.bar("evaluate", 8) as advance:
        advance()
        bars._progress.refresh()
    assert "12 %, 1 of 8 samples" in terminal.file.getvalue()


def test_a_terminal_that_cannot_draw_gets_lines(lines):
    terminal = Console(file=io.StringIO(), width=60, force_terminal=True, _environ={"TERM": "dumb"})
    bars = ProgressBars(terminal, line_seconds=0.01)
    with bars, bars.bar("evaluate", 4):
        wait_for(lines, 1)
    assert lines()[0].startswith("evaluate: 0 of 4 samples")
    assert not terminal.file.getvalue()


def test_a_worker_of_a_parallel_sweep_tells_lines_since_it_shares_the_terminal(lines, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-2")
    terminal = Console(file=io.StringIO(), width=60, force_terminal=True)
    bars = ProgressBars(terminal, line_seconds=0.01)
    with bars, bars.bar("evaluate", 4):
        wait_for(lines, 1)
    assert lines()[0].startswith("evaluate: 0 of 4 samples")
    assert not terminal.file.getvalue()
