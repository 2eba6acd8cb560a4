"""The path from all float to all that gains, and what a budget allows of the candidates on it."""

from dataclasses import replace

import pytest

from pipeline.mixed_precision.candidates import Budget, Candidate, best_of, holds, on_front
from pipeline.mixed_precision.greedy_knapsack import choice_after, front_to_back, hull, path_of
from pipeline.mixed_precision.precision_groups import Group
from pipeline.quantize.plan import Precision

STATIC, DYNAMIC, STORAGE = Precision.static_int8, Precision.dynamic_int8, Precision.weight_int8


def group(name, *precisions):
    return Group(name, "Conv", (name,), f"{name}.weight", precisions or (STATIC, DYNAMIC, STORAGE))


def candidate(label, loss, speedup, size=100, **more):
    return Candidate(label, {label: STATIC}, loss, 0.0, size, size / 100, speedup, **more)


def test_the_group_that_gains_most_for_its_loss_comes_first():
    groups = [group("dear", STATIC), group("cheap", STATIC)]
    steps = path_of(groups, {("dear", STATIC): 1.0, ("cheap", STATIC): 0.1}, {("dear", STATIC): 2.0, ("cheap", STATIC): 1.0})
    assert [step.group for step in steps] == ["cheap", "dear"]


def test_a_group_goes_through_its_precisions_as_far_as_each_is_worth_it():
    one = group("one")
    losses = {("one", STORAGE): 0.1, ("one", DYNAMIC): 0.2, ("one", STATIC): 1.0}
    gains = {("one", STORAGE): 1.0, ("one", DYNAMIC): 1.1, ("one", STATIC): 4.0}
    assert [step.precision for step in hull(one, losses, gains)] == [STORAGE, STATIC], "dynamic lies below the line between"


def test_a_precision_that_gains_nothing_is_never_chosen():
    assert hull(group("one", STATIC), {("one", STATIC): 0.0}, {("one", STATIC): -0.5}) == []


def test_the_path_from_front_to_back_ends_where_the_other_does():
    groups = [group("first"), group("second", STATIC), group("never", STATIC)]
    losses = {("first", STORAGE): 0.1, ("first", STATIC): 1.0, ("second", STATIC): 0.1}
    gains = {("first", STORAGE): 1.0, ("first", STATIC): 4.0, ("second", STATIC): 9.0, ("never", STATIC): -1.0}
    steps = path_of(groups, losses, gains)
    assert [step.group for step in steps] == ["second", "first", "first"]
    ordered = front_to_back(groups, steps)
    assert [(step.group, step.precision, step.gain, step.loss) for step in ordered] == [
        ("first", STATIC, 4.0, 1.0),
        ("second", STATIC, 9.0, 0.1),
    ]


def test_each_prefix_of_the_path_is_the_best_choice_for_its_loss():
    """Against all combinations: no other choice gains more for the same loss."""
    names = [f"g{number}" for number in range(6)]
    groups = [group(name, STATIC) for name in names]
    losses = {(name, STATIC): (number * 7 % 5 + 1) / 10 for number, name in enumerate(names)}
    gains = {(name, STATIC): (number * 3 % 7 + 1) / 10 for number, name in enumerate(names)}
    steps = path_of(groups, losses, gains)
    for count in range(len(steps) + 1):
        chosen = choice_after(steps, count)
        loss, gain = (sum(values[name, STATIC] for name in chosen) for values in (losses, gains))
        for bits in range(1 << len(names)):
            other = [name for at, name in enumerate(names) if bits >> at & 1]
            if sum(losses[name, STATIC] for name in other) <= loss + 1e-9:
                assert sum(gains[name, STATIC] for name in other) <= gain + 1e-9


def test_within_a_limit_on_the_loss_the_fastest_is_chosen():
    found = [candidate("float", 0.0, 1.0), candidate("fast", 0.09, 2.0), candidate("too lossy", 0.2, 3.0)]
    assert best_of(found, Budget("log_mel_l1", max_loss=0.1)) == (found[1], True)


def test_of_two_that_are_equally_fast_the_smaller_is_chosen():
    found = [candidate("large", 0.0, 1.5, size=100), candidate("small", 0.05, 1.5, size=30)]
    assert best_of(found, Budget("log_mel_l1", max_loss=0.1, size_weight=0.25))[0].label == "small"


def test_with_a_least_speed_what_loses_least_is_chosen():
    found = [candidate("float", 0.0, 1.0), candidate("enough", 0.05, 1.6), candidate("more", 0.3, 2.5)]
    assert best_of(found, Budget("log_mel_l1", min_speedup=1.5)) == (found[1], True)


def test_nothing_slower_than_fp32_is_chosen_where_there_is_another():
    found = [candidate("float", 0.0, 1.0, size=100), candidate("slow and small", 0.01, 0.9, size=10)]
    assert best_of(found, Budget("log_mel_l1", max_loss=0.1, size_weight=1.0))[0].label == "float"


def test_where_nothing_meets_the_budget_the_closest_is_named_and_said_to_miss_it():
    found = [candidate("float", 0.0, 1.0), candidate("int8", 0.05, 1.8)]
    best, met = best_of(found, Budget("log_mel_l1", max_loss=0.1, min_speedup=3.0))
    assert (best.label, met) == ("int8", False)


@pytest.mark.parametrize("change", [{"loss": 0.2}, {"speedup": 1.0}, {"bytes": 90}, {"length_change": 0.1}])
def test_every_limit_of_a_budget_counts(change):
    budget = Budget("log_mel_l1", max_loss=0.1, min_speedup=1.5, max_bytes=60, max_length_change=0.02)
    fine = candidate("fine", 0.05, 2.0, size=50)
    assert holds(fine, budget)
    assert not holds(replace(fine, **change), budget)


def test_the_front_holds_what_no_other_candidate_beats_in_loss_speed_and_size():
    found = [candidate("float", 0.0, 1.0), candidate("int8", 0.1, 2.0, size=30), candidate("beaten", 0.2, 1.5, size=40)]
    untimed = replace(candidate("untimed", 0.0, None), speedup=None)
    assert [on_front(c, [*found, untimed]) for c in (*found, untimed)] == [True, True, False, False]
