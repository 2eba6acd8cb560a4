"""The collector of cycles while a command starts."""

import gc

import pytest

from pipeline.garbage import COLLECTED_AFTER, collect_garbage, keep_garbage


@pytest.fixture(autouse=True)
def same_afterwards():
    """Give this process its collector back as it was; what a run in it has frozen is let go."""
    before = gc.get_threshold()
    collect_garbage.cache_clear()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.enable()


def test_nothing_is_collected_until_a_run_begins_and_then_seldom():
    keep_garbage()
    assert not gc.isenabled()
    collect_garbage()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == COLLECTED_AFTER


def test_what_is_there_when_a_run_begins_is_not_looked_through_again():
    collect_garbage()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    made = [[] for _ in range(1000)]
    collect_garbage()
    assert gc.get_freeze_count() < frozen + len(made), "of the jobs of a sweep, the first freezes"
