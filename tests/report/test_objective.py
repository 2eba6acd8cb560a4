"""What a run returns to a sweeper: the values that `optimize_for` names, or a clear error."""

import pytest

from pipeline.errors import ConfigError, StageError
from pipeline.report import objective
from pipeline.report.objective import check_names, objective_names
from pipeline.report.report_file import report_from_json

ALL = ("load", "inspect", "quantize", "benchmark", "evaluate")


def objective_of(report, names, **settings):
    return objective.objective_of(report_from_json(report, "rerun"), names, **settings)


def test_without_a_name_it_is_the_first_metric(report):
    assert objective_of(report, None) == 20.0  # wer_percent of the quantized model


def test_a_name_gives_a_number_and_several_names_a_tuple_in_their_order(report):
    assert objective_of(report, ["posterior_kl"]) == 0.011
    assert objective_of(report, ["speedup", "bytes", "size_ratio"]) == (1.5, 1_000_000.0, 0.25)


def test_one_name_may_be_given_without_a_list():
    assert objective_names("speedup") == ["speedup"]
    assert objective_names(["speedup", "bytes"]) == ["speedup", "bytes"]
    assert objective_names(None) is None


def test_the_speed_of_several_graphs_is_that_of_their_times_together(report):
    first = next(iter(report["benchmark"].values()))
    halves = {"baseline_ms": first["baseline_ms"] | {"p50": 1.0}, "quantized_ms": first["quantized_ms"] | {"p50": 2.0}}
    report["benchmark"]["joiner"] = first | halves
    assert objective_of(report, ["speedup"]) == (3.0 + 1.0) / (2.0 + 2.0)


def test_a_run_that_was_not_evaluated_returns_nothing_unless_a_sweeper_needs_it(report):
    del report["evaluation"]
    assert objective_of(report, None) is None
    with pytest.raises(StageError, match="optimize_for: this run has no metric"):
        objective_of(report, None, required=True)


def test_a_value_that_this_run_does_not_have_is_refused_with_those_that_it_has(report):
    with pytest.raises(StageError, match=r"optimize_for: this run has no roundtrip_wer_percent.*wer_percent"):
        objective_of(report, ["roundtrip_wer_percent"])
    del report["benchmark"]
    with pytest.raises(StageError, match="optimize_for: this run has no speedup"):
        objective_of(report, ["speedup"])


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_cannot_be_compared_is_refused(report, value):
    report["evaluation"]["metrics"]["posterior_kl"]["quantized"] = value
    with pytest.raises(StageError, match=r"optimize_for: posterior_kl of this run is .* which no sweeper can compare"):
        objective_of(report, ["posterior_kl"])


@pytest.mark.parametrize(
    ("names", "stages", "message"),
    [
        (["sped_up"], ALL, r"optimize_for: no metric 'sped_up'.*speedup"),
        ([], ALL, "optimize_for: an empty list"),
        (["speedup"], ("load", "quantize"), "optimize_for: speedup comes from the stage benchmark"),
        (["wer_percent"], ("load", "quantize"), "optimize_for: wer_percent comes from the stage evaluate"),
        (["bytes"], ("load",), "optimize_for: bytes comes from the stage quantize"),
    ],
)
def test_what_no_run_can_give_is_refused_before_anything_runs(names, stages, message):
    with pytest.raises(ConfigError, match=message):
        check_names(names, stages)


def test_every_known_name_is_taken():
    check_names(["speedup", "bytes", "size_ratio", "log_mel_l1"], ALL)
    check_names(None, ("load",))
