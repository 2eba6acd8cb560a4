"""`fail_if_worse=true`: the verdict on quality as the exit status."""

SHORT = ("mode=static", "stages=[load,quantize,evaluate]", "evaluation.node_samples=0", "fail_if_worse=true")
CLIPPED = ("mode.method=percentile", "mode.percentile=60")  # most of what a tensor holds is clipped


def test_a_model_beyond_its_limit_ends_the_command_with_status_3_and_the_limit(
    user_files, run_quickly, users_model, users_data
):
    run = run_quickly(*users_model, *users_data, *SHORT, *CLIPPED)
    assert run.exit_code == 3, run.stderr
    assert "fail_if_worse: beyond the limit: relative_error is worse by" in run.stderr
    assert "limit 0.05" in run.stderr
    assert run.report["status"] == "done"
    assert run.report["verdict"]["quality"].startswith("beyond the limit")


def test_without_the_setting_a_model_beyond_its_limit_is_a_run_like_others(user_files, run_quickly, users_model, users_data):
    run = run_quickly(*users_model, *users_data, *SHORT[:-1], *CLIPPED).succeeded()
    assert "quality: BEYOND THE LIMIT" in run.stdout


def test_a_model_within_its_limit_ends_with_status_0(user_files, run_quickly, users_model, users_data):
    run = run_quickly(*users_model, *users_data, *SHORT).succeeded()
    [check] = [one for one in run.report["evaluation"]["limits"] if one["decides"]]
    assert check["metric"] == "relative_error"
    assert check["high"] <= check["limit"]
    assert run.report["verdict"]["quality"].startswith("within the limit")


def test_quality_on_noise_is_not_measured_and_does_not_pass(user_files, run_quickly, users_model):
    run = run_quickly(*users_model, "mode=dynamic", *SHORT[1:])
    assert run.exit_code == 3
    assert "fail_if_worse: not measured: the evaluation set is seeded noise" in run.stderr


def test_a_sweep_ends_with_status_3_where_one_of_its_models_is_beyond_its_limit(
    user_files, run_quickly, users_model, users_data
):
    run = run_quickly("-m", *users_model, *users_data, *SHORT, "mode.method=percentile", "mode.percentile=100,60")
    assert run.exit_code == 3, run.stderr
    [line] = [line for line in run.stdout.splitlines() if line.startswith("fail_if_worse: #")]
    assert line.startswith("fail_if_worse: #1: beyond the limit: relative_error")


def test_a_limit_of_quality_needs_the_stage_that_measures_it(user_files, run_quickly, users_model, users_data):
    run = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize]", "fail_if_worse=true")
    assert run.exit_code == 2
    assert "fail_if_worse: quality comes from the stage evaluate, which is not in stages." in run.stderr
