"""Settings are typed and checked once; what is unknown, of a wrong type or out of its limits is told, all at once."""

from typing import get_type_hints

import pytest
from omegaconf import OmegaConf

from pipeline.config.choices import CalibrationKind, Format, RangeMethod
from pipeline.config.compose import RENAMED, read_run_config, save_config, to_plain, to_run_config
from pipeline.config.mode_settings import MODE_SCHEMAS, StaticConfig, WeightOnlyConfig
from pipeline.errors import ConfigError, did_you_mean
from pipeline.models.vocoder import Vocoder


def composed(**changes):
    values = {
        "model": {"_target_": "pipeline.models.vocoder.Vocoder", "name": "vocoder", "path": "vocos.onnx"},
        "mode": {"kind": "static", "name": "static", "method": "mse", "op_types": ["Conv"]},
        "calibration": {"kind": "real", "samples": 4},
        "evaluation": {"kind": "audio"},
        "benchmark": {"runs": 5, "seconds": 0},
        "runtime": {"threads": 1},
        "stages": ["quantize", "load"],
        "seed": 7,
        "rerun": None,
    }
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
    return OmegaConf.create(values)


def test_settings_become_typed_values():
    config = to_run_config(composed())
    assert isinstance(config.model, Vocoder)
    assert isinstance(config.mode, StaticConfig)
    assert config.mode.method is RangeMethod.mse
    assert config.mode.format is Format.qdq
    assert config.calibration.kind is CalibrationKind.real
    assert config.seed == 7


@pytest.mark.parametrize(
    ("threads", "further", "timed"), [(1, [], (1,)), (2, [], (2,)), (1, [2, 4], (1, 2, 4)), (2, [1, 2], (2, 1))]
)
def test_the_threads_of_every_stage_are_timed_first_and_further_ones_after_them(threads, further, timed):
    config = to_run_config(composed(runtime={"threads": threads}, benchmark={"threads": further}))
    assert config.thread_counts == timed


@pytest.mark.parametrize("given", [7, "yes", 1.0])
def test_a_switch_is_true_or_false_and_nothing_that_could_pass_for_it(given):
    with pytest.raises(ConfigError, match=rf"mode\.per_channel: {given!r} is not allowed; allowed: true or false"):
        to_run_config(composed(mode={"per_channel": given}))


def test_stages_run_in_the_order_of_the_chain_whatever_the_order_they_are_named_in():
    assert to_run_config(composed()).stages == ("load", "quantize")


def test_the_kind_of_a_mode_decides_its_settings():
    assert isinstance(to_run_config(weight_only()).mode, WeightOnlyConfig)


def weight_only(**changes):
    settings = composed()
    settings.mode = {"kind": "weight_only", "name": "weight_only", "op_types": ["MatMul"], **changes}
    return settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": {"methode": "mse"}}, r"mode\.methode: no such setting.*method"),
        ({"mode": {"bits": 4}}, r"mode\.bits: no such setting"),
        ({"model": {"pth": "x"}}, r"model\.pth: no such setting.*path"),
        ({"benchmark": {"run": 5}}, r"benchmark\.run: no such setting.*runs"),
        ({"mode": {"method": "msee"}}, r"mode\.method.*msee"),
        ({"mode": {"kind": "statik"}}, r"mode\.kind: 'statik' is not a mode.*static"),
        ({"calibration": {"samples": "many"}}, r"calibration\.samples.*many"),
        ({"stages": ["load", "evaluat"]}, r"stages: no stage 'evaluat'.*evaluate"),
        ({"stages": []}, r"stages: empty"),
        ({"stages": "load"}, r"stages: 'load' is no list"),
        ({"stages": 7}, r"stages: 7 is no list"),
        ({"stages": [7, {"load": 1}]}, r"stages: no stage 7"),
        ({"seed": None}, r"seed: None is out of limits; allowed: a whole number, 0 or more"),  # ~seed
        ({"seed": -1}, r"seed: -1 is out of limits"),
        ({"runtime": {"threads": 2**31 - 1}}, r"runtime\.threads: 2147483647 is out of limits; allowed: 1 to 1024"),
        ({"limits": {"opening_seconds": float("inf")}}, r"limits\.opening_seconds: inf is out of limits"),
        ({"limits": {"memory_mb": 2**62}}, r"limits\.memory_mb: \d+ is out of limits; allowed: above 0, at most 10+\."),
        ({"model": {"_target_": "os.system"}}, r"model\._target_: 'os\.system' is not allowed"),
        ({"model": {"_target_": "pipeline.models.vocoder.Vocodr"}}, r"model\._target_.*cannot be imported"),
        ({"model": {"_target_": "pipeline.models.speech_model.Path"}}, r"model\._target_.*is not an adapter"),
        ({"mode": {"percentile": 20.0}}, r"mode\.percentile: 20\.0 is out of limits"),
        ({"mode": {"weight_type": "int4", "format": "qoperator"}}, r"mode\.format: qoperator is out of limits"),
        ({"benchmark": {"runs": 4}}, r"benchmark\.runs: 4 is out of limits; allowed: at least 5"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_full_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        to_run_config(composed(**changes))


def test_an_unknown_top_level_key_is_refused_with_the_nearest():
    settings = composed()
    settings.sead = 3
    with pytest.raises(ConfigError, match=r"sead: no such setting.*seed"):
        to_run_config(settings)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        to_run_config(composed(mode={"methode": 1}, benchmark={"run": 5}))
    assert "mode.methode" in str(error.value)
    assert "benchmark.run" in str(error.value)


@pytest.mark.parametrize("changes", [{"bits": 5}, {"block_size": 48}, {"accuracy_level": 9}])
def test_weight_only_knows_its_limits(changes):
    with pytest.raises(ConfigError, match=rf"mode\.{next(iter(changes))}"):
        to_run_config(weight_only(**changes))


def test_saved_settings_are_read_back_as_they_were(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(save_config(to_plain(composed())), encoding="utf-8")
    config, plain = read_run_config(path)
    assert config == to_run_config(composed())
    assert save_config(plain) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [pytest.param("[1, 2]\n", id="a list"), pytest.param("a: [\n", id="no YAML")])
def test_a_file_that_holds_no_settings_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rerun: .*config\.yaml"):
        read_run_config(path)


def test_the_nearest_names_are_suggested_and_all_where_none_is_near():
    assert did_you_mean("statik", ["static", "dynamic"]) == " Did you mean static?"
    assert did_you_mean("xyz", ["static", "dynamic"]) == " Allowed: dynamic, static."
    assert did_you_mean("xyz", []) == ""
    assert "(30 in all)" in did_you_mean("xyz", [f"option{k}" for k in range(30)])


FORMER = [
    ("rewrite", "optimize"),
    ("folding", "fold_batch_norm"),
    ("equalization", "cross_layer_equalization"),
    ("smoothing", "smooth_quant"),
    ("storage_op_types", "weight_only_op_types"),
]


@pytest.mark.parametrize(("former", "present"), FORMER)
def test_a_saved_setting_under_a_former_name_is_refused_with_its_present_name(tmp_path, former, present):
    path = tmp_path / "config.yaml"
    path.write_text(save_config(OmegaConf.to_container(composed(mode={former: True}))))
    with pytest.raises(ConfigError, match=rf"mode\.{former}: no such setting\. It was renamed: use mode\.{present}\."):
        read_run_config(path)


def test_a_saved_mode_under_a_former_name_is_refused_with_its_present_name(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(save_config(OmegaConf.to_container(composed(mode={"kind": "float"}))))
    with pytest.raises(ConfigError, match=r"mode\.kind: 'float' is not a mode\. It was renamed: use mode=optimize\."):
        read_run_config(path)


def test_a_former_name_in_the_mode_of_one_graph_is_refused_with_its_present_name():
    settings = composed()
    settings.graph_modes = {"joiner": {"kind": "dynamic", "name": "dynamic", "op_types": ["MatMul"], "rewrite": True}}
    with pytest.raises(
        ConfigError, match=r"graph_modes\.joiner\.rewrite: no such setting\. It was renamed: use mode\.optimize\."
    ):
        to_run_config(settings)


@pytest.mark.parametrize("present", RENAMED.values())
def test_what_was_renamed_exists_under_its_present_name(repo, present):
    group, setting = present.split("=") if "=" in present else present.split(".")
    if "=" in present:
        assert (repo / "conf" / group / f"{setting}.yaml").is_file()
    else:
        assert any(setting in get_type_hints(schema) for schema in MODE_SCHEMAS.values())


@pytest.mark.parametrize("key", ["model", "mode", "calibration", "runtime", "limits", "graph_modes"])
def test_a_text_in_the_place_of_settings_is_told_of(key):
    with pytest.raises(ConfigError, match=rf"{key}: 'fast' stands where settings belong"):
        to_run_config(composed(**{key: "fast"}))
