"""The collector of cycles while a command starts."""

import gc

import pytest

from pipeline.garbage import SELDOM, collect_as_usual, collect_seldom


@pytest.fixture
def thresholds():
    """Return those of this process, which are the same afterwards; what a run in this process has frozen is let go."""
    before = gc.get_threshold()
    collect_as_usual.cache_clear()
    yield before
    gc.unfreeze()
    gc.set_threshold(*before)


def test_the_collector_runs_seldom_until_the_settings_are_composed_and_then_as_the_caller_had_it(thresholds):
    gc.set_threshold(1234, 5, 6)
    collect_seldom()
    collect_seldom()
    assert gc.get_threshold()[0] == SELDOM
    collect_as_usual()
    assert gc.get_threshold() == (1234, 5, 6)


def test_what_is_there_when_a_run_begins_is_not_looked_through_again(thresholds):
    collect_as_usual()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    collect_as_usual()
    assert gc.get_freeze_count() == frozen, "of the jobs of a sweep, the first freezes"
    assert gc.get_threshold() == thresholds, "where nothing was changed before, nothing is"
