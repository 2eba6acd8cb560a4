"""No setting is accepted in silence: what a run would never read is an error that names what reads it."""

from typing import get_type_hints

import pytest
from omegaconf import OmegaConf

from pipeline.config.mode_settings import MODE_SCHEMAS
from pipeline.config.readers import READERS, read_by
from pipeline.config.settings import BenchmarkConfig, CalibrationConfig, EvaluationConfig, PackageConfig, TrackingConfig

LOAD = "stages=[load]"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("model=vocoder", "mode=dynamic", "calibration.path=x"), ("calibration.path", "mode=static or mode=auto")),
        (("model=vocoder", "mode=fp16", "calibration=random"), ("calibration=random", "mode=static or mode=auto")),
        (("model=vocoder", "mode=static", "mode.percentile=99"), ("mode.percentile", "mode.method=percentile")),
        (("model=vocoder", "mode=static", "mode.method=mse", "mode.momentum=0.5"), ("mode.momentum", "moving_average")),
        (("model=vocoder", "mode=static", "mode.assume=true"), ("mode.assume", "mode.optimize=true")),
        (("model=asr", "mode=static", "evaluation.sample_rate_hz=22050"), ("evaluation.sample_rate_hz", "evaluation=audio")),
        (("model=asr", "mode=static", "evaluation.listen=5"), ("evaluation.listen", "evaluation=tts")),
        (("model=vocoder", "mode=static", "calibration.length=9"), ("calibration.length", "calibration=random")),
        (("model=vocoder", "mode=static", "calibration=random", "calibration.path=data/clips"), ("calibration.path", "any")),
        (("model=matcha", "mode=static", "calibration.on_sample_rate=refuse"), ("calibration.on_sample_rate", "recordings")),
        (("model=vocoder", "mode=weight_only", "mode.op_types=[Conv]", "mode.bits=4"), ("mode.bits", "MatMul")),
        (("model=vocoder", "mode=dynamic", "package.license=mit"), ("package.license", "package=sherpa_onnx")),
        (("model=onnx", "model.path=model.onnx", "model.sha256=0", "mode=dynamic"), ("model.sha256", "model.url")),
    ],
)
def test_a_setting_that_a_run_never_reads_is_refused_with_what_reads_it(run_quickly, user_files, given, words):
    run = run_quickly(*given, LOAD)
    assert run.exit_code == 2
    assert "would have no effect" in run.stderr
    for word in words:
        assert word in run.stderr
    [pasted] = [line for line in run.stderr.splitlines() if line.startswith("try: ")]
    assert f" {words[0]}" not in pasted


@pytest.mark.parametrize(
    "given",
    [
        ("mode=dynamic", "calibration.path=null", "evaluation.listen=0"),  # asks for nothing
        ("mode=static", "mode.method=percentile", "mode.percentile=99"),
        ("mode=dynamic", "+mode@graph_modes.encoder=static", "calibration.samples=2"),  # one graph reads it
    ],
)
def test_a_setting_that_a_run_reads_is_accepted(run_quickly, given):
    run_quickly("model=asr", *given, LOAD).succeeded()


def test_in_a_sweep_a_setting_may_be_meant_for_other_jobs_and_is_a_warning_in_those_that_do_not_read_it(run_quickly):
    run = run_quickly("-m", "model=vocoder", "mode=dynamic,static", "calibration.samples=2", LOAD).succeeded()
    warned = [
        directory.parent.name
        for directory in run.directories
        if "would have no effect" in (directory / "report.json").read_text()
    ]
    assert warned == ["dynamic"]


def test_calibration_data_that_a_mode_does_not_need_is_warned_of_where_it_is_there(user_files, run_quickly, users_model):
    """The command line of another mode stays valid; a file that is not there is a mistake in any mode."""
    run = run_quickly(*users_model, "mode=dynamic", "calibration.path=./calib.npz", "stages=[load,quantize]").succeeded()
    warned = " ".join(run.report["warnings"])
    assert "calibration.path: would have no effect" in warned
    assert "mode=static or mode=auto" in warned
    lost = run_quickly(*users_model, "mode=dynamic", "calibration.path=nowhere.npz", "stages=[load,quantize]")
    assert lost.exit_code == 2
    assert "calibration.path: would have no effect" in lost.stderr


def test_a_path_tells_what_calibration_data_it_is(user_files, run_quickly, users_model):
    run = run_quickly(*users_model, "mode=static", "calibration.path=calib.npz", "stages=[load,quantize]").succeeded()
    assert OmegaConf.load(run.directory / "config.yaml").calibration.kind == "arrays"
    assert not any("noise" in warning and "ranges" in warning for warning in run.report["warnings"])


def test_a_folder_of_recordings_for_a_file_of_unknown_kind_is_refused_with_the_kinds_that_are_fed_with_them(
    user_files, run_quickly, users_model, repo
):
    run = run_quickly(*users_model, "mode=static", f"calibration.path={repo}/data/clips", "stages=[load,quantize]")
    assert run.exit_code == 2
    for word in ("model=vocoder", "model=zipformer_ctc", "calibration.path=<npz>"):
        assert word in run.stderr
    assert "on_bad_sample" not in run.stderr


def test_a_kind_that_is_chosen_must_be_that_of_the_path(user_files, run_quickly):
    run = run_quickly(
        "model=vocoder", "mode=static", "calibration=real", "calibration.path=calib.npz", "stages=[load,quantize]"
    )
    assert run.exit_code == 2
    assert "Use calibration=arrays" in run.stderr


def test_an_unknown_operator_type_is_found_when_the_graph_is_loaded(user_files, run_quickly, users_model):
    for mode, key in (("static", "op_types"), ("auto", "op_types"), ("fp16", "ops_in_fp32"), ("static", "dynamic_op_types")):
        run = run_quickly(*users_model, f"mode={mode}", f"mode.{key}=[Convv]", LOAD)
        assert run.exit_code == 2, mode
        assert f"mode.{key}" in run.stderr
        assert "Convv" in run.stderr


def test_more_threads_than_cores_are_warned_of(user_files, run_quickly, users_model):
    run = run_quickly(*users_model, "mode=dynamic", "benchmark.threads=[1000]", LOAD).succeeded()
    assert any(warning.startswith("benchmark.threads: 1000 threads on a machine of") for warning in run.report["warnings"])


@pytest.mark.parametrize(("other", "warned"), [("calib.npz", True), ("eval.npz", False)])
def test_one_set_for_calibration_and_report_is_warned_of(user_files, run_quickly, users_model, other, warned):
    data = ("calibration.path=calib.npz", f"evaluation.path={other}")
    report = run_quickly(*users_model, "mode=static", *data, LOAD).succeeded().report
    assert any("name the same set" in warning for warning in report["warnings"]) == warned


def test_every_setting_with_a_reader_exists(repo):
    known = {f"calibration.{name}" for name in get_type_hints(CalibrationConfig)}
    known |= {f"evaluation.{name}" for name in get_type_hints(EvaluationConfig)}
    known |= {f"mode.{name}" for schema in MODE_SCHEMAS.values() for name in get_type_hints(schema)}
    known |= {f"benchmark.{name}" for name in get_type_hints(BenchmarkConfig)}
    known |= {f"package.{name}" for name in get_type_hints(PackageConfig)}
    known |= {f"tracking.{name}" for name in get_type_hints(TrackingConfig)}
    known |= {f"model.{name}" for path in (repo / "conf" / "model").glob("*.yaml") for name in OmegaConf.load(path)}
    assert set(READERS) - known == {"calibration"}  # the group
    assert "Only read by mode.method=percentile." in (repo / "docs" / "settings.md").read_text(encoding="utf-8")
    assert read_by("seed") == ""
