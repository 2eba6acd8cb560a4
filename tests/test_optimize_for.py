"""What a sweeper that optimises gets from the real command, and what it gets where a run has no such value."""

import json

import pytest

SWEEPER = '''
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class Smallest(BasicSweeper):
    """Runs all values, and says which values came back."""

    def sweep(self, arguments):
        returns = super().sweep(arguments)
        print("returned:", [job.return_value for batch in returns for job in batch])
'''
QUICK = ("mode=dynamic", "stages=[load,quantize,evaluate]", "evaluation.node_samples=0")


@pytest.fixture
def search(user_files, run_quickly, users_model):
    """Return a function that sweeps with a sweeper that looks at what its jobs return."""
    (user_files / "hydra_plugins").mkdir()
    (user_files / "hydra_plugins" / "smallest.py").write_text(SWEEPER, encoding="utf-8")

    def run(*overrides):
        sweeper = "hydra.sweeper._target_=hydra_plugins.smallest.Smallest"
        return run_quickly("-m", sweeper, *users_model, *QUICK, *overrides, PYTHONPATH=str(user_files))

    return run


def reports(run):
    return [json.loads((path / "report.json").read_text(encoding="utf-8")) for path in run.directories]


def test_a_sweeper_gets_the_first_metric_where_none_is_named(search):
    run = search("seed=1,2").succeeded()
    first = [report["evaluation"]["metrics"]["sqnr_db"]["quantized"] for report in reports(run)]  # which pages show first
    assert f"returned: {first}" in run.stdout


def test_a_sweeper_for_several_objectives_gets_them_in_order(search):
    run = search("seed=1,2", "optimize_for=[cosine,bytes]").succeeded()
    wanted = [
        (report["evaluation"]["metrics"]["cosine"]["quantized"], float(report["artifacts"][0]["bytes"]))
        for report in reports(run)
    ]
    assert f"returned: {wanted}" in run.stdout


def test_a_name_that_nothing_has_is_refused_with_the_nearest(run_quickly, user_files, users_model):
    run = run_quickly(*users_model, *QUICK, "optimize_for=cosin")
    assert run.exit_code == 2
    assert "optimize_for: no metric 'cosin'. Did you mean cosine" in run.stderr


def test_a_metric_that_this_run_does_not_have_is_refused_after_it(run_quickly, user_files, users_model):
    run = run_quickly(*users_model, *QUICK, "optimize_for=wer_percent")
    assert run.exit_code == 2
    assert "optimize_for: this run has no wer_percent" in run.stderr
    assert run.report["status"] == "done"  # the run is good; only what was asked of it is not there


def test_a_job_that_fails_ends_a_search_with_its_message(search):
    run = search("mode.op_types=[Conv],[MatMul]")
    assert run.exit_code == 2
    assert "would change nothing" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_run_that_was_not_evaluated_cannot_be_searched_over(search):
    run = search("seed=1,2", "stages=[load,quantize]")
    assert run.exit_code == 2
    assert "optimize_for: this run has no metric" in run.stderr


def test_a_sweep_that_compares_only_needs_no_metric(run_quickly, user_files, users_model):
    run_quickly("-m", *users_model, "mode=dynamic", "stages=[load]", "seed=1,2").succeeded()
