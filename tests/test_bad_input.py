"""What bad input gets: exit status 2, one message that names what is wrong and what is allowed, and nothing half-written.

One test per line of that promise, each through the command itself, in a process of its own.
"""

import json

import numpy as np
import onnx
import pytest
import soundfile

QUICK = ("stages=[load,quantize]",)


def refused(run, *words):
    """Check that a run ended as bad input must end, and that its message says all of these words; return the message."""
    output = run.stderr + run.stdout
    assert run.exit_code == 2, output[-3000:]
    assert "Traceback" not in output
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, run.stderr
    message = run.stderr[run.stderr.index("error:") :]
    for word in words:
        assert word in message
    for directory in run.directories:
        report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        assert (report["schema"], report["status"]) == (2, "failed")
        assert " ".join(report["error"].split()) in " ".join(message.split())
        left = {path.name for path in directory.rglob("*") if path.is_file() and path.parent.name != ".hydra"}
        assert left <= {"report.json", "config.yaml", "run.log", ".unfinished.json"}, left
        assert not (directory / ".staging").exists()
    return message


@pytest.fixture
def users_run(user_files, run_quickly, users_model, users_data):
    """Return a function that runs the command on the user's model and data, with further overrides."""

    def run(*overrides):
        return run_quickly(*users_model, *users_data, *QUICK, *overrides)

    return run


# The model


def test_a_missing_model_is_named_with_the_models_beside_its_place(users_run):
    message = refused(users_run("mode=dynamic", "model.path=modell.onnx"), "model.path", "modell.onnx")
    assert "model.onnx" in message.replace("modell.onnx", "")


def test_no_model_at_all_is_refused_by_name_of_the_key(run_quickly):
    refused(run_quickly("model=onnx", "mode=dynamic"), "model.path")


@pytest.mark.parametrize("contents", [b"", b"no protobuf at all \xff\xfe" * 40, b"\x00" * 200], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_onnx_model_is_refused(users_run, user_files, contents):
    (user_files / "model.onnx").write_bytes(contents)
    refused(users_run("mode=dynamic"), "model.path", "model.onnx")


def test_a_model_that_was_cut_off_in_a_download_is_refused(users_run, user_files):
    whole = (user_files / "model.onnx").read_bytes()
    (user_files / "model.onnx").write_bytes(whole[: len(whole) // 2])
    refused(users_run("mode=dynamic"), "model.path", "model.onnx")


def test_a_model_whose_external_weights_are_missing_is_refused(users_run, user_files, conv_net):
    onnx.save_model(conv_net(), user_files / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (user_files / "w.bin").unlink()
    refused(users_run("mode=dynamic"), "model.path", "model.onnx", "w.bin")


def test_a_model_that_onnx_runtime_does_not_know_is_refused(users_run, user_files, build):
    onnx.save(build("g (float[n] x) => (float[n] y) { y = Frobnicate (x) }"), user_files / "model.onnx")
    refused(users_run("mode=dynamic"), "model.path", "ONNX Runtime", "Frobnicate")


@pytest.mark.parametrize("mode", ["dynamic", "static", "weight_only", "fp16"])
def test_a_model_that_is_already_quantized_is_refused(users_run, user_files, mode):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(user_files / "model.onnx", user_files / "quantized.onnx", weight_type=QuantType.QUInt8)
    refused(users_run(f"mode={mode}", "model.path=quantized.onnx"), "model.path", "already quantized", "fp32")


@pytest.mark.parametrize("mode", ["static", "fp16"])
def test_an_fp16_model_is_refused(users_run, user_files, mode):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(user_files / "model.onnx"), keep_io_types=True)
    onnx.save(half, user_files / "half.onnx")
    refused(users_run(f"mode={mode}", "model.path=half.onnx"), "model.path", "fp16", "fp32")


# Settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mode.methd=mse", ("mode.methd", "method")),
        ("+mode.methd=mse", ("mode.methd", "method")),
        ("+mode.typo=1", ("mode.typo", "Allowed")),
        ("benchmark.run=9", ("benchmark.run", "runs")),
        ("+benchmark.run=9", ("benchmark.run", "runs")),
        ("+model.pfad=x", ("model.pfad", "path")),
        ("stage=[load]", ("stage", "stages")),
        ("+stage=[load]", ("stage", "stages")),
        ("modes=static", ("modes",)),
        ("mode.rewrite=true", ("mode.rewrite", "use mode.optimize")),
        ("+mode.rewrite=true", ("mode.rewrite", "use mode.optimize")),
        ("mode.smoothing=true", ("mode.smoothing", "use mode.smooth_quant")),
        ("mode.storage_op_types=[Gemm]", ("mode.storage_op_types", "use mode.weight_only_op_types")),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(run_quickly, override, words):
    refused(run_quickly("stages=[load]", override), *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mode=statik", ("mode=statik", "static")),
        ("mode=float", ("mode=float", "use mode=optimize")),
        ("model=matscha", ("model=matscha", "matcha")),
        ("benchmark=quik", ("benchmark=quik", "quick")),
        ("calibration=rael", ("calibration=rael", "real")),
        ("evaluation=listening", ("evaluation=listening", "asr, audio, tensors, tts")),
        ("experiment=artikle", ("experiment=artikle", "article")),
    ],
)
def test_an_unknown_option_of_a_group_is_refused_with_the_nearest(run_quickly, override, words):
    refused(run_quickly(override), *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("benchmark.runs=abc", ("benchmark.runs", "abc", "Integer")),
        ("benchmark.seconds=long", ("benchmark.seconds", "long", "Float")),
        ("mode.per_channel=often", ("mode.per_channel", "often", "true or false")),
        ("mode.method=minmx", ("mode.method", "minmx", "minmax")),
        ("mode.op_types=Conv", ("mode.op_types", "a list is needed")),
        ("seed=early", ("seed", "early")),
        ("stages=load", ("stages", "a list is needed")),
        ("benchmark.threads=2", ("benchmark.threads", "a list is needed")),
        ("benchmark.threads=[many]", ("benchmark.threads", "many", "Integer")),
        ("runtime.threads=many", ("runtime.threads", "many", "Integer")),
        ("evaluation.sample_rate_hz=high", ("evaluation.sample_rate_hz", "high")),
        ("mode.per_channel=7", ("mode.per_channel: 7", "true or false")),
        ("mode.reduce_range=2", ("mode.reduce_range: 2", "true or false, or null")),
        ("benchmark.self_check=1", ("benchmark.self_check: 1", "true or false")),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused(run_quickly, override, words):
    refused(run_quickly("stages=[load]", override), *words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("benchmark.runs=1",), ("benchmark.runs: 1", "at least 5")),
        (("benchmark.rounds=1",), ("benchmark.rounds: 1", "at least 2")),
        (("runtime.threads=0",), ("runtime.threads: 0", "1 to 1024")),
        (("benchmark.threads=[1,0]",), ("benchmark.threads: [1, 0]", "from 1 to 1024")),
        (("benchmark.threads=[2,2]",), ("benchmark.threads: [2, 2]", "each once")),
        (("calibration.samples=0",), ("calibration.samples: 0", "at least 1")),
        (("evaluation.samples=-2",), ("evaluation.samples: -2", "at least 1")),
        (("mode.percentile=20",), ("mode.percentile: 20", "above 50")),
        (("mode.opset=3",), ("mode.opset: 3", "7 to")),
        (("mode=weight_only", "mode.bits=5"), ("mode.bits: 5", "4 or 8")),
        (("mode=weight_only", "mode.block_size=33"), ("mode.block_size: 33", "32, 64")),
        (("mode=dynamic", "mode.weight_type=int16"), ("mode.weight_type: int16", "int8 or uint8")),
        (("mode.format=qoperator", "mode.activation_type=uint16"), ("mode.format: qoperator", "qdq")),
    ],
)
def test_a_value_out_of_its_limits_is_refused_with_the_limits(run_quickly, overrides, words):
    refused(run_quickly("stages=[load]", *overrides), *words)


def test_all_values_out_of_limits_are_told_at_once(run_quickly):
    refused(run_quickly("benchmark.runs=1", "calibration.samples=0"), "benchmark.runs", "calibration.samples")


def test_an_adapter_outside_of_the_project_is_not_imported(run_quickly):
    refused(run_quickly("model._target_=os.system"), "model._target_", "os.system", "pipeline.models.")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("evaluation.metrics=[sqnr]",), ("evaluation.metrics", "sqnr", "sqnr_db")),
        (("evaluation.metrics=[wer_percent]",), ("evaluation.metrics", "wer_percent", "evaluation=tensors")),
        (("evaluation=asr",), ("evaluation.kind", "asr", "audio, tensors")),
        (("evaluation=audio", "evaluation.labels=labels.npy"), ("evaluation.labels", "tensors")),
    ],
)
def test_an_evaluation_that_does_not_fit_the_model_is_refused_before_anything_runs(users_run, overrides, words):
    refused(users_run("mode=dynamic", "stages=[load]", *overrides), *words)


# Nodes, operator types, stages


@pytest.mark.parametrize("key", ["nodes_to_exclude", "nodes_to_quantize"])
@pytest.mark.parametrize("mode", ["static", "fp16"])
def test_an_unknown_node_is_refused_with_the_nearest(users_run, mode, key):
    refused(users_run(f"mode={mode}", f"mode.{key}=[conv_c]"), f"mode.{key}", "conv_c", "conv_a", "conv_b")


def test_an_excluded_glob_that_matches_nothing_is_refused(users_run):
    refused(users_run("mode=static", "mode.nodes_to_exclude=['/decoder/*']"), "mode.nodes_to_exclude", "/decoder/*")


@pytest.mark.parametrize("mode", ["dynamic", "static", "weight_only"])
def test_an_unknown_op_type_is_refused_with_the_nearest(users_run, mode):
    refused(users_run(f"mode={mode}", "mode.op_types=[Convv]"), "mode.op_types", "Convv", "Conv")


def test_an_op_type_that_is_to_stay_in_fp32_and_that_no_node_has_is_refused(users_run):
    refused(users_run("mode=fp16", "mode.ops_in_fp32=[Convv]"), "mode.ops_in_fp32", "Convv", "Conv")


def test_an_unknown_stage_is_refused_with_the_nearest(run_quickly):
    refused(run_quickly("stages=[load,quantise]"), "stages", "quantise", "quantize")


def test_no_stage_at_all_is_refused(run_quickly):
    refused(run_quickly("stages=[]"), "stages", "load, inspect, doctor, quantize, benchmark, evaluate")


@pytest.mark.parametrize(
    ("stages", "giver"), [("[quantize]", "load"), ("[load,benchmark]", "quantize"), ("[load,inspect,evaluate]", "quantize")]
)
def test_a_stage_without_what_it_needs_is_refused_with_what_to_add(run_quickly, stages, giver):
    refused(run_quickly(f"stages={stages}"), "stages", f"add {giver}")


def test_a_mode_that_would_change_nothing_says_so_and_fails(users_run):
    refused(users_run("mode=dynamic", "mode.op_types=[MatMul]"), "would change nothing", "Conv is not in mode.op_types")


def test_a_mode_whose_nodes_are_all_excluded_says_so_and_fails(users_run):
    refused(users_run("mode=static", "mode.nodes_to_exclude=['conv_*']"), "would change nothing", "mode.nodes_to_exclude")


def test_a_node_that_decides_shapes_is_refused_when_it_is_asked_for(run_quickly, shipped):
    from pipeline.graph.shape_deciding import shape_deciding_nodes

    graph = shipped("matcha").model.graph
    fixed = shape_deciding_nodes(graph)
    node = next(node.name for node in graph.node if node.op_type == "Conv" and node.name in fixed)
    overrides = ("model=matcha", "mode=dynamic", *QUICK, f"mode.nodes_to_quantize=['{node}']")
    refused(run_quickly(*overrides), "mode.nodes_to_quantize", node, "decides shapes")


# Samples


@pytest.mark.parametrize("key", ["calibration", "evaluation"])
def test_arrays_without_any_sample_are_refused(users_run, user_files, key):
    np.savez(user_files / "empty.npz")
    refused(users_run("mode=static", f"{key}.path=empty.npz"), f"{key}.path", "empty.npz", "at least one sample")


def test_a_manifest_without_any_utterance_is_refused(run_quickly, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    run = run_quickly("model=vocoder", "mode=static", *QUICK, "calibration.path=empty.jsonl", "evaluation.samples=1")
    refused(run, "calibration.path", "empty.jsonl", "empty")


def test_calibration_data_that_is_not_there_is_refused(users_run):
    refused(
        users_run("mode=static", "calibration.path=nowhere.npz"), "calibration.path", "nowhere.npz", "<sample>/<input name>"
    )


def test_calibration_on_arrays_without_a_path_is_refused(users_run):
    refused(users_run("mode=static", "calibration.path=null"), "calibration.path", "not set")


def test_calibration_data_that_is_no_npz_is_refused(users_run, user_files):
    (user_files / "calib.npz").write_text("sample,x\n", encoding="utf-8")
    refused(users_run("mode=static"), "calibration.path", "calib.npz", ".npz")


def good(frames=20):
    return np.ones((1, 16, frames), np.float32)


BAD_SAMPLES = {
    "an input is missing": ({"y": good()}, ("'x'",)),
    "an input is too many": ({"x": good(), "speaker": good()}, ("'speaker'",)),
    "a wrong shape": ({"x": np.ones((1, 15, 20), np.float32)}, ("'x'", "[1, 15, 20]", "[1, 16, any]")),
    "a wrong rank": ({"x": np.ones((16, 20), np.float32)}, ("'x'", "[16, 20]", "[1, 16, any]")),
    "a wrong type": ({"x": np.ones((1, 16, 20), np.float64)}, ("'x'", "float64", "float32")),
    "NaN": ({"x": np.where(np.arange(20) == 7, np.nan, good()).astype(np.float32)}, ("'x'", "nan", "(0, 0, 7)")),
    "Inf": ({"x": np.where(np.arange(20) == 7, np.inf, good()).astype(np.float32)}, ("'x'", "inf", "(0, 0, 7)")),
    "no frame": ({"x": np.ones((1, 16, 0), np.float32)}, ("'x'", "[1, 16, 0]", "empty")),
}


@pytest.mark.parametrize("key", ["calibration", "evaluation"])
@pytest.mark.parametrize("what", BAD_SAMPLES)
def test_a_bad_sample_is_named_with_its_input(users_run, user_files, write_arrays, key, what):
    bad, words = BAD_SAMPLES[what]
    write_arrays(user_files / "bad.npz", {"first": {"x": good()}, "the_bad_one": bad, "last": {"x": good()}})
    refused(users_run("mode=static", f"{key}.path=bad.npz"), f"{key}.path", "'the_bad_one'", *words)


def test_arrays_that_are_not_named_by_sample_and_input_are_refused(users_run, user_files):
    np.savez(user_files / "calib.npz", x=good())
    refused(users_run("mode=static"), "calibration.path", "'x'", "<sample>/<input name>")


# Audio


@pytest.fixture
def manifest(tmp_path):
    """Return a function that writes a manifest of one recording made of these samples."""

    def write(audio=None, rate=22_050, **entry):
        if audio is not None:
            soundfile.write(tmp_path / "clip.wav", audio, rate)
        line = json.dumps({"id": "clip", "audio": "clip.wav", **entry})
        (tmp_path / "manifest.jsonl").write_text(line + "\n", encoding="utf-8")
        return "manifest.jsonl"

    return write


def tone(rate, seconds=0.6):
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


VOCODER = ("model=vocoder", "mode=static", *QUICK, "evaluation.samples=1")


def test_a_file_that_is_no_audio_is_refused(run_quickly, tmp_path, manifest):
    (tmp_path / "clip.wav").write_text("no audio", encoding="utf-8")
    refused(run_quickly(*VOCODER, f"calibration.path={manifest()}"), "calibration.path", "clip.wav", "WAV or FLAC")


def test_audio_that_is_not_there_is_refused(run_quickly, manifest):
    refused(run_quickly(*VOCODER, f"calibration.path={manifest()}"), "calibration.path", "clip.wav")


@pytest.mark.parametrize(
    ("audio", "word"),
    [(np.zeros(0, np.float32), "empty"), (np.zeros((9000, 2), np.float32), "mono")],
    ids=["empty", "stereo"],
)
def test_audio_that_no_model_takes_is_refused(run_quickly, manifest, audio, word):
    refused(run_quickly(*VOCODER, f"calibration.path={manifest(audio)}"), "calibration.path", "clip.wav", word)


def test_audio_of_another_rate_is_refused_where_the_settings_say_so(run_quickly, manifest):
    path = manifest(tone(16_000), 16_000)
    run = run_quickly(*VOCODER, f"calibration.path={path}", "calibration.on_sample_rate=refuse")
    refused(run, "calibration.path", "clip.wav", "16000 Hz", "22050 Hz")


def test_audio_of_another_rate_is_resampled_with_a_note_and_no_warning(run_quickly, manifest):
    run = run_quickly(*VOCODER, f"calibration.path={manifest(tone(16_000), 16_000)}").succeeded()
    [note] = [note for note in run.report["notes"] if "resampled" in note]
    assert "16000 Hz" in note
    assert "22050 Hz" in note
    assert "resampled" not in str(run.report["warnings"])
    assert note in (run.directory / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert (run.stdout + run.stderr).count(note) == 1


def test_a_recording_without_text_cannot_be_scored_for_words(run_quickly, manifest):
    path = manifest(tone(16_000, 1.0), 16_000)
    run = run_quickly("model=asr", "mode=dynamic", "stages=[load,quantize,evaluate]", f"evaluation.path={path}")
    assert run.exit_code == 2
    assert "'clip' has no text" in run.stderr


def test_a_sentence_without_tokens_and_text_cannot_be_spoken(run_quickly, manifest):
    run = run_quickly("model=matcha", "mode=dynamic", *QUICK, f"evaluation.path={manifest()}")
    refused(run, "evaluation.path", "'clip'", "no tokens and no text")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ("line 1", "not JSON")),
        ('{"text": "no id"}', ("line 1", '"id"')),
        ('{"id": "a", "sound": "a.wav"}', ("line 1", "'sound'")),
        ('{"id": "a", "tokens": "1 2"}', ("line 1", "tokens")),
    ],
)
def test_a_manifest_s_bad_line_is_named(run_quickly, tmp_path, line, words):
    (tmp_path / "manifest.jsonl").write_text(line + "\n", encoding="utf-8")
    refused(run_quickly(*VOCODER, "calibration.path=manifest.jsonl"), "calibration.path", "manifest.jsonl", *words)


# Directories


def test_an_output_directory_that_cannot_be_made_is_refused(run_quickly, tmp_path):
    (tmp_path / "outputs").write_text("in the way", encoding="utf-8")
    refused(run_quickly("stages=[load]"), "hydra.run.dir", "outputs")


def test_an_output_directory_of_the_user_s_that_cannot_be_made_is_refused(run_quickly, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    refused(run_quickly("stages=[load]", "hydra.run.dir=file/run"), "hydra.run.dir", "file")


def test_a_directory_that_holds_a_run_is_never_written_into(run_quickly, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}", encoding="utf-8")
    refused(run_quickly("stages=[load]", "hydra.run.dir=old"), "hydra.run.dir", "old", "report.json")
    assert (tmp_path / "old" / "report.json").read_text(encoding="utf-8") == "{}"


def test_a_rerun_of_a_directory_that_is_no_run_is_refused(run_quickly, tmp_path):
    (tmp_path / "holiday").mkdir()
    run = run_quickly("rerun=holiday")
    refused(run, "rerun", "holiday", "not a run's directory")
    assert not run.directories


def test_a_rerun_of_a_directory_that_is_not_there_is_refused(run_quickly):
    refused(run_quickly("rerun=nowhere"), "rerun", "nowhere", "not a run's directory")


def test_a_rerun_with_other_overrides_is_refused_since_they_would_have_no_effect(users_run, run_quickly):
    past = users_run("mode=dynamic").succeeded()
    refused(run_quickly(f"rerun={past.directory}", "mode=static"), "rerun", "mode=static")


def test_a_rerun_of_a_run_whose_report_is_damaged_is_refused(users_run, run_quickly):
    past = users_run("mode=dynamic", "stages=[load]").succeeded()
    (past.directory / "report.json").write_text('{"schema": 1, "sta', encoding="utf-8")
    refused(run_quickly(f"rerun={past.directory}"), "rerun", "report.json", "damaged")


def test_a_rerun_of_a_run_whose_report_is_of_another_schema_is_refused(users_run, run_quickly):
    past = users_run("mode=dynamic", "stages=[load]").succeeded()
    (past.directory / "report.json").write_text('{"schema": 3, "status": "done"}', encoding="utf-8")
    refused(run_quickly(f"rerun={past.directory}"), "rerun", "schema 3", "reads 1 and 2", "run it again")


def test_in_a_sweep_a_run_that_fails_does_not_stop_the_others_and_the_exit_status_says_it(
    user_files, run_quickly, users_model, users_data
):
    sweep = ("mode=dynamic,fp16", "mode.nodes_to_exclude=['conv_*'],[conv_a]")
    run = run_quickly("-m", *users_model, *users_data, *QUICK, *sweep)
    assert run.exit_code == 2
    assert "Traceback" not in run.stdout + run.stderr
    statuses = [json.loads((path / "report.json").read_text(encoding="utf-8"))["status"] for path in run.directories]
    assert sorted(statuses) == ["done", "done", "failed", "failed"]
