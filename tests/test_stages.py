"""The chain: which stages may be selected, and what each promises."""

import numpy as np
import pytest

import pipeline
from pipeline.config.choices import CalibrationKind
from pipeline.errors import StageError
from pipeline.runner import STAGES, selected_stages
from pipeline.sample import Sample
from pipeline.stages import inspect as inspect_stage
from pipeline.stages.inspect import inspect_graph


def test_stages_run_in_the_order_of_the_table():
    assert [stage.name for stage in selected_stages(["evaluate", "quantize", "load"])] == ["load", "quantize", "evaluate"]


def test_every_stage_needs_only_what_a_stage_before_it_gives():
    given = set()
    for stage in STAGES:
        assert set(stage.needs) <= given
        given.add(stage.gives)


@pytest.mark.parametrize("names", [["quantize"], ["load", "benchmark"], ["inspect"], ["load", "evaluate"]])
def test_a_selection_that_lacks_what_a_stage_needs_is_refused(names):
    with pytest.raises(StageError, match=f"stages: {names[-1]} needs"):
        selected_stages(names)


def test_multiplications_are_counted_by_hand(source_of, conv_net):
    """Two convolutions of kernel 3: 24 frames x (16 x 32 + 32 x 16) channels x 3."""
    probe = Sample("probe", {"x": np.zeros((1, 16, 24), np.float32)})
    found = inspect_graph(source_of(conv_net()), probe, CalibrationKind.real, threads=1)
    assert found.macs == {"Conv": 24 * (16 * 32 + 32 * 16) * 3}
    assert found.parameters == 2 * 16 * 32 * 3 + 32 + 16
    assert found.ops == {"Conv": 2, "Relu": 1}
    assert [(value.name, value.type, value.shape) for value in found.inputs] == [("x", "float32", [1, 16, None])]


def test_a_profile_that_fails_does_not_end_a_run(monkeypatch, user_files, users_model, users_data):
    def fails(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.chdir(user_files)
    monkeypatch.setattr(inspect_stage, "profile_ops_and_shapes", fails)
    report = pipeline.run([*users_model, *users_data, "mode=static", "stages=[load,inspect,quantize]"])
    assert report.status == "done" and report.artifacts
    [found] = report.inspect.values()
    assert found.advised_mode == "not sure"
    assert "no space left on device" in found.reasons[0]
    assert any("no space left on device" in warning for warning in report.warnings)
    assert not report.artifacts[0].multiplications


def test_the_report_says_how_much_of_the_multiplications_is_in_integers(user_files, run_quickly, users_model, users_data):
    stages = "stages=[load,inspect,quantize]"
    run = run_quickly(*users_model, *users_data, "mode=static", "mode.nodes_to_exclude=[conv_b]", stages).succeeded()
    [artifact] = run.report["artifacts"]
    assert artifact["multiplications"] == {"int8, static ranges": 0.5, "fp32": 0.5}
    assert "50 % int8, static ranges; 50 % fp32" in run.stdout
