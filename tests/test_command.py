"""The command line as Hydra's users expect it: help that lists every choice, settings without a run, completion."""

import json
import re

import onnx
import pytest
from omegaconf import OmegaConf

GROUPS = ("model", "mode", "calibration", "evaluation", "benchmark", "package", "tracking", "experiment")


def test_help_lists_every_group_and_every_option_that_exists(run_quickly, repo):
    text = run_quickly("--help").succeeded().stdout
    for group in GROUPS:
        options = sorted(path.stem for path in (repo / "conf" / group).glob("*.yaml"))
        assert options
        assert re.search(rf"^ +{group}$", text, flags=re.MULTILINE), group
        for option in options:
            assert re.search(rf"^    {option}\s+\S", text, flags=re.MULTILINE), f"{group}={option} has no line in --help"


def test_every_group_that_a_user_chooses_from_is_in_conf(repo):
    folders = {path.name for path in (repo / "conf").iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "article"}  # article: the columns of experiment=article, no choice of its own


def test_help_and_settings_make_no_directory(run_quickly):
    assert not run_quickly("--help").directories
    assert not run_quickly("--cfg", "job").directories


def test_the_settings_can_be_shown_without_running(run_quickly):
    shown = OmegaConf.create(run_quickly("model=asr", "mode=dynamic", "benchmark.runs=7", "--cfg", "job").succeeded().stdout)
    assert (shown.model.name, shown.mode.name, shown.evaluation.kind, shown.benchmark.runs) == ("asr", "dynamic", "asr", 7)


@pytest.mark.parametrize("model", ["matcha", "vocoder", "hifigan", "asr"])
@pytest.mark.parametrize("mode", ["dynamic", "static", "weight_only", "fp16"])
def test_every_model_composes_with_every_mode(run_quickly, model, mode):
    shown = OmegaConf.create(run_quickly(f"model={model}", f"mode={mode}", "--cfg", "job").succeeded().stdout)
    assert (shown.model.name, shown.mode.kind) == (model, mode)


@pytest.mark.parametrize(
    ("typed", "answers"),
    [
        ("mode=st", {"mode=static"}),
        ("model=", {"model=matcha", "model=vocoder", "model=hifigan", "model=asr", "model=onnx"}),
        ("mode.per_ch", {"mode.per_channel="}),
        ("mode.method=", {"mode.method=minmax", "mode.method=entropy"}),
        ("mode=auto mode.method=m", {"mode.method=minmax", "mode.method=mse", "mode.method=moving_average"}),
        ("mode.reduce_range=", {"mode.reduce_range=true", "mode.reduce_range=false", "mode.reduce_range=null"}),
        ("calibration.on_bad_sample=s", {"calibration.on_bad_sample=skip"}),
        ("model.onnx --calib mode=st", {"mode=static"}),
        ("doctor model=v", {"model=vocoder", "model=vits"}),
        ("--cal", {"--calib"}),
        ("pa", {"path=", "package="}),
        ("", {"model=", "stages=", "mode."}),
        ("mode=dynamic mode.seed=(", set()),
        ("mode=statik mode.", set()),
    ],
)
def test_completion_in_the_shell_answers(run_quickly, typed, answers):
    run = run_quickly("--shell-completion", "query=bash", COMP_LINE=f".venv/bin/python3 run.py {typed}", COMP_POINT="999")
    found = set(run.succeeded().stdout.split())
    assert answers <= found
    assert bool(found) == bool(answers)
    assert "RangeMethod" not in run.stdout
    assert not found & {"schema", "schema=", "article=", "hydra", "hydra.", "stages."}, "not for users"
    assert not run.stderr


def test_a_run_without_evaluation_data_says_that_quality_is_not_known(user_files, run_quickly, users_model):
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load,quantize,evaluate]").succeeded()
    assert any("evaluation.path: not set" in warning for warning in run.report["warnings"])


def test_the_saved_settings_alone_reproduce_the_run(user_files, run_quickly, users_model, users_data):
    """Nothing in config.yaml is left to be looked up elsewhere: no interpolation, no default, no path from here, no tag."""
    run = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize]", "mode.method=minmax").succeeded()
    text = (run.directory / "config.yaml").read_text(encoding="utf-8")
    assert "${" not in text
    assert "!!python" not in text
    saved = OmegaConf.create(text)
    assert (saved.mode.method, list(saved.stages)) == ("minmax", ["load", "quantize"])
    assert saved.calibration.path == str(user_files / "calib.npz")


def test_a_run_measures_on_several_numbers_of_threads_and_against_itself(user_files, run_quickly, users_model, users_data):
    overrides = ("mode=static", "stages=[load,quantize,benchmark]", "benchmark.self_check=true")
    threads = ("runtime.threads=2", "benchmark.threads=[1]")
    quick = ("benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2")
    run = run_quickly(*users_model, *users_data, *overrides, *threads, *quick).succeeded()
    measured = run.report["benchmark"]["model"]
    assert (measured["threads"], [other["threads"] for other in measured["other_threads"]]) == (2, [1])
    assert set(measured["self_check"]) == set(measured["speedup"]) == {"median", "low", "high"}
    trace = json.loads((run.directory / measured["op_times"]["trace"]).read_text(encoding="utf-8"))
    assert {event["pid"] for event in trace["traceEvents"]} == {1, 2}
    assert "fp32 against itself" in run.stdout


def test_external_data_loads_and_is_counted(user_files, run_quickly, users_model, users_data, make_noise):
    from pipeline.graph.session import infer, open_session
    from pipeline.sample import Sample

    overrides = ("mode=static", "mode.external_data=true", "stages=[load,quantize,evaluate]")
    run = run_quickly(*users_model, *users_data, *overrides).succeeded()
    [artifact] = run.report["artifacts"]
    files = sorted(run.directory.glob("model.int8.onnx*"))
    assert [path.name for path in files] == ["model.int8.onnx", "model.int8.onnx.data"]
    assert artifact["bytes"] == sum(path.stat().st_size for path in files)
    assert infer(open_session(files[0]), Sample("s", {"x": make_noise(12)}))["y"].shape == (1, 16, 12)


def test_layers_are_left_out_by_the_module_that_they_were_exported_from_and_shown_with_it(
    user_files, run_quickly, users_model, users_data, conv_net
):
    model = conv_net()
    for node, name, module in zip(
        model.graph.node, ("node_conv1d", "node_relu", "node_conv1d_1"), ("enc", "act", "dec"), strict=True
    ):
        node.name = name
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{module}', '{module}.layer', '{name}']")
    onnx.save(model, user_files / "model.onnx")
    run = run_quickly(
        *users_model, *users_data, "mode=dynamic", "mode.nodes_to_exclude=[dec]", "stages=[load,quantize,evaluate]"
    ).succeeded()
    [artifact] = run.report["artifacts"]
    assert list(artifact["quantized_nodes"]) == ["node_conv1d"]
    assert artifact["kept"] == [{"node": "node_conv1d_1", "reason": "excluded by mode.nodes_to_exclude"}]
    assert artifact["modules"] == {"node_conv1d": "enc.layer", "node_conv1d_1": "dec.layer"}
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    assert "<code>node_conv1d_1</code> <small>dec.layer</small>" in page
