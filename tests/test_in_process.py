"""`pipeline.run`: the command from Python, any number of times, and Hydra is left as it was."""

import json
import logging

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import pipeline
from pipeline.errors import ConfigError, PipelineError
from pipeline.report.report_file import read_report

QUICK = ("mode=dynamic", "stages=[load,quantize]")


@pytest.fixture
def here(user_files, monkeypatch):
    """Make the user's files the working directory, and return it."""
    monkeypatch.chdir(user_files)
    return user_files


def test_a_run_returns_its_report_and_leaves_the_usual_directory(here, users_model, capfd):
    report = pipeline.run([*users_model, *QUICK])
    [directory] = here.glob("outputs/model/dynamic/*")
    assert report == read_report(directory, "rerun")
    assert report.status == "done"
    found = {path.name for path in directory.iterdir()}
    assert found == {".hydra", "config.yaml", "run.log", "report.json", "report.html", "model.int8.onnx"}
    assert "quantize took" in (directory / "run.log").read_text(encoding="utf-8")
    assert list(OmegaConf.load(directory / ".hydra" / "overrides.yaml")) == [*users_model, *QUICK]
    assert not capfd.readouterr().out.strip()


def test_it_can_be_called_again_and_leaves_no_state_behind(here, users_model):
    logger = logging.getLogger("pipeline")
    before = (logger.level, list(logger.handlers))
    for _ in range(2):
        pipeline.run([*users_model, *QUICK])
        assert not GlobalHydra.instance().is_initialized()
        assert (logger.level, list(logger.handlers)) == before
    assert len(list(here.glob("outputs/model/dynamic/*"))) == 2


def test_a_program_that_uses_hydra_itself_keeps_its_own(here, users_model, tmp_path):
    from hydra import compose, initialize_config_dir

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text("mine: 1\n", encoding="utf-8")
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.2"):
        pipeline.run([*users_model, *QUICK])
        assert compose("config").mine == 1


def test_a_past_run_can_be_run_again(here, users_model):
    pipeline.run([*users_model, *QUICK])
    [past] = here.glob("outputs/model/dynamic/*")
    assert pipeline.run([f"rerun={past}"]).rerun.artifacts_identical == {"model.int8.onnx": True}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mode=dynmic"], "mode=dynmic: no such option"),
        (["mode.per_chanel=true"], r"mode\.per_chanel"),
        (["benchmark.runs=1"], r"benchmark\.runs: 1 is out of limits"),
        (["mode=dynamic,static"], "Ambiguous value"),
        (["experiment=article"], "is a sweep"),
        (["compare=[outputs]"], "compare: outputs does not exist"),
        (["rerun=nowhere"], "rerun: nowhere is not a run's directory"),
        ("model=onnx", "is a text; give a list"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_mistake_of_the_user_s_is_a_config_error(overrides, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.run(overrides)
    assert not GlobalHydra.instance().is_initialized()


def test_a_run_that_fails_raises_what_its_report_says(here, users_model):
    with pytest.raises(PipelineError, match="would change nothing") as error:
        pipeline.run([*users_model, *QUICK, "mode.op_types=[MatMul]"])
    [written] = here.glob("outputs/model/dynamic/*/report.json")
    report = json.loads(written.read_text(encoding="utf-8"))
    assert (report["status"], report["error"]) == ("failed", str(error.value))
