"""What a gain in time and in bytes is worth, for the limits that a user gives."""

from types import SimpleNamespace

import pytest

from pipeline.mixed_precision.candidates import Budget
from pipeline.mixed_precision.cost_model import KernelSaving
from pipeline.mixed_precision.greedy_knapsack import path_of
from pipeline.mixed_precision.precision_groups import Group
from pipeline.mixed_precision.utilities import utilities_of
from pipeline.quantize.plan import Precision

SMALLER = ("smaller and slower", Precision.static_int8)
GAINED = {SMALLER: KernelSaving(-1.0, -0.5, 600), ("larger", Precision.static_int8): KernelSaving(-1.0, -0.5, -10)}
GROUPS = [Group(name, "Conv", (name,), name, (precision,)) for name, precision in GAINED]


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ({"max_bytes": 500}, [SMALLER]),
        ({"max_bytes": 500, "max_loss": 0.1, "size_weight": 0.25}, [SMALLER]),
        ({"max_bytes": 500, "min_speedup": 0.5, "size_weight": 0.25}, [SMALLER]),
        ({"max_loss": 0.1, "size_weight": 0.25}, []),
    ],
)
def test_a_node_that_gains_bytes_and_no_time_is_worth_it_where_the_size_is_limited(limits, chosen):
    found = utilities_of(GAINED, 2.0, SimpleNamespace(size_bytes=1000), Budget("log_mel_l1", **limits))
    wanted = {key for utilities in found for key, utility in utilities.items() if utility > 0}
    assert sorted(wanted) == chosen
    paths = [path_of(GROUPS, dict.fromkeys(GAINED, 0.01), utilities) for utilities in found]
    assert [(step.group, step.precision) for step in paths[-1]] == chosen
