"""What is beyond a limit is refused by an error that names the setting, before it takes what the limit protects."""

import io
import threading
import time
import zipfile
from dataclasses import fields

import numpy as np
import onnx
import pytest
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.arrays import read_arrays, read_labels
from pipeline.data.audio_files import read_audio
from pipeline.errors import DataError, StageError
from pipeline.graph.local_functions import operators_when_inlined
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.limits import LimitsConfig, holding
from pipeline.operator_count import has_more_operators
from pipeline.own_time import waiting
from pipeline.stage_time import at_most
from tests.many_nodes import KINDS

QUICK = "stages=[load,quantize]"


def refused(run, *words):
    assert run.exit_code == 2, run.stderr
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in run.report["error"]


def test_a_model_that_is_too_large_is_refused_with_its_size_and_its_weights_count(
    run_quickly, user_files, users_model, conv_net
):
    model = conv_net()
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((300_000, 1, 1), np.float32), "wa"))
    onnx.save_model(model, user_files / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    refused(run_quickly(*users_model, "mode=dynamic", "stages=[load]", "limits.model_mb=1"), "limits.model_mb: 1", "has 2 MB")


def test_a_graph_of_too_many_operators_is_refused_with_their_number_and_those_in_bodies_count(
    run_quickly, user_files, users_model, build
):
    branches = (
        "<then_branch = t () => (float[n] a) { b = Neg (x) a = Neg (b) }, else_branch = e () => (float[n] c) { c = Abs (x) }>"
    )
    onnx.save(
        build(f"g (float[n] x, bool k) => (float[n] y) {{ z = If (k) {branches} y = Neg (z) }}"), user_files / "model.onnx"
    )
    command = (*users_model, "mode=dynamic", "stages=[load]")
    refused(run_quickly(*command, "limits.nodes=4"), "limits.nodes: 4", "model.onnx has 5 operators", "limits.nodes=5")
    run_quickly(*command, "limits.nodes=5", "hydra.run.dir=again").succeeded()


def test_operators_that_calls_of_functions_stand_for_count(run_quickly, user_files, users_model):
    (user_files / "model.onnx").write_bytes(KINDS["functions"](1024))
    command = (*users_model, "mode=dynamic", "stages=[load]")
    refused(run_quickly(*command, "limits.nodes=1024"), "limits.nodes: 1024", "has 1025 operators, once each call")
    run_quickly(*command, "limits.nodes=1025", "hydra.run.dir=again").succeeded()
    (user_files / "model.onnx").write_bytes(KINDS["functions"](2**60))
    refused(run_quickly(*command), "has 2000001 operators or more", "without unrolled loops.")


def test_functions_that_call_each_other_in_a_circle_are_no_operators(build):
    model = build("g (float[n] x) => (float[n] y) { y = Neg (x) }")
    for name, called in (("a", "b"), ("b", "a"), ("c", "c")):
        inner = [onnx.helper.make_node(called, ["v"], ["w"], domain="own"), onnx.helper.make_node("Neg", ["w"], ["z"])]
        model.functions.append(onnx.helper.make_function("own", name, ["v"], ["z"], inner, []))
    model.graph.node.add(op_type="a", domain="own")
    assert operators_when_inlined(model, 100) == 3  # Neg, and those of a and b


@pytest.mark.parametrize("kind", ["chain", "bodies", "empty"])
def test_operators_are_counted_in_a_file_that_no_library_has_read(tmp_path, kind):
    path = tmp_path / "model.onnx"
    path.write_bytes(KINDS[kind](1000))
    count = sum(len(scope.node) for scope in graphs_of(onnx.load(path).graph))
    assert count >= 1000
    assert has_more_operators(path, count - 1)
    assert not has_more_operators(path, count)


def test_what_is_no_model_has_no_operators(tmp_path):
    for number, contents in enumerate(
        (b"", b"\x3a", b"\x3a\xff" + b"\xff" * 20, b"\x0f" * 50, np.random.default_rng(0).bytes(5000))
    ):
        (tmp_path / f"{number}.onnx").write_bytes(contents)
        assert not has_more_operators(tmp_path / f"{number}.onnx", 1)


def test_a_file_of_more_operators_than_any_limit_allows_is_not_read(run_quickly, tmp_path):
    (tmp_path / "model.onnx").write_bytes(KINDS["empty"](2_000_000))
    for settings in (("path=model.onnx",), ("model=onnx", "model.path=model.onnx", "limits.nodes=5000000")):
        run = run_quickly(*settings, "mode=dynamic", "stages=[load]")
        assert run.exit_code == 2
        assert "more than 2000000 operators" in run.stderr
        assert "Traceback" not in run.stderr


def test_a_recording_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(16_000 * 3, np.int16), 16_000)
    with holding(LimitsConfig(sample_seconds=2.5)), pytest.raises(DataError, match=r"3 s long.*limits\.sample_seconds=2\.5"):
        read_audio(path, 16_000, SampleRateMismatch.refuse, [])
    assert len(read_audio(path, 16_000, SampleRateMismatch.refuse, [])) == 48_000


def write_silence(path, seconds, rate_hz, channels=1):
    soundfile.write(path, np.zeros((seconds * rate_hz, channels), np.int16), rate_hz, subtype="PCM_16")
    return path


def test_a_recording_that_unpacks_to_more_than_a_sample_may_have_is_not_unpacked(tmp_path):
    path = write_silence(tmp_path / "bomb.flac", 2, 192_000)
    assert path.stat().st_size < 20_000
    with holding(LimitsConfig(sample_mb=1)), pytest.raises(DataError, match=r"takes 1 MB in memory.*limits\.sample_mb=1"):
        read_audio(path, 192_000, SampleRateMismatch.refuse, [])
    assert len(read_audio(path, 192_000, SampleRateMismatch.refuse, [])) == 384_000


@pytest.mark.parametrize(
    ("rate_hz", "channels", "words"), [(16_000, 8, "8 channels"), (2**31 - 1, 1, "2147483647 Hz"), (768_001, 1, "768001 Hz")]
)
def test_a_recording_that_only_its_header_makes_large_is_not_read(tmp_path, monkeypatch, rate_hz, channels, words):
    """To resample from such a rate takes a filter of as many values."""
    soundfile.write(tmp_path / "odd.wav", np.zeros((100, channels), np.int16), rate_hz)
    monkeypatch.setattr(soundfile, "read", None)
    with pytest.raises(DataError, match=words):
        read_audio(tmp_path / "odd.wav", 16_000, SampleRateMismatch.resample, [])


def test_a_long_recording_of_a_set_is_treated_as_any_bad_sample(run_quickly):
    run = run_quickly("model=vocoder", "mode=static", QUICK, "limits.sample_seconds=0.1")
    refused(run, "limits.sample_seconds=0.1", "evaluation.path", "e000.flac")


def test_arrays_that_unpack_to_more_than_a_sample_may_have_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **{"one/x": np.zeros(400_000, np.float32), "one/y": np.zeros(10, np.float32)})
    assert path.stat().st_size < 10_000
    with holding(LimitsConfig(sample_mb=1)), pytest.raises(DataError, match=r"'one' has 1 MB or more.*limits\.sample_mb=1"):
        read_arrays(path, "calibration.path", 5)
    assert read_arrays(path, "calibration.path", 5)[0].size == 400_010


def header_of(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_arrays_that_say_they_are_larger_than_the_memory_are_a_data_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("one/x.npy", header_of((10**15,)))
    with pytest.raises(DataError, match=r"liar\.npz is not an \.npz that numpy reads"):
        read_arrays(tmp_path / "liar.npz", "calibration.path", 5)
    (tmp_path / "liar.npy").write_bytes(header_of((10**15,)))
    with pytest.raises(DataError, match=r"evaluation\.labels: .*liar\.npy"):
        read_labels(tmp_path / "liar.npy")


def test_a_stage_that_takes_too_long_is_ended_and_leaves_nothing(run_quickly):
    run = run_quickly("model=vocoder", "mode=static", QUICK, "limits.stage_seconds=0.01")
    refused(run, "load: took longer than limits.stage_seconds=0.01")
    assert [stage["status"] for stage in run.report["stages"]] == ["failed", "pending"]
    assert not (run.directory / ".staging").exists()


@pytest.mark.parametrize("place", ["main thread", "another thread"])
def test_the_time_of_a_stage_ends_it_in_any_thread_and_what_is_in_time_is_left_alone(place):
    found = []

    def stage(seconds, lasts):
        try:
            with at_most(seconds, "evaluate"):
                until = time.monotonic() + lasts
                while time.monotonic() < until:
                    try:
                        time.sleep(0.01)
                    except Exception as error:  # as code that goes on after any error does
                        found.append(error)
        except StageError as error:
            found.append(str(error))
        else:
            found.append("done")

    for seconds, lasts in ((0.1, 60), (60, 0.05), (None, 0.05)):
        if place == "main thread":
            stage(seconds, lasts)
        else:
            thread = threading.Thread(target=stage, args=(seconds, lasts))
            thread.start()
            thread.join()
    assert found[0].startswith("evaluate: took longer than limits.stage_seconds=0.1")
    assert found[1:] == ["done", "done"]


@pytest.mark.parametrize("place", ["main thread", "another thread"])
def test_a_wait_for_another_process_is_not_time_of_a_stage(place):
    found = []

    def stage():
        with at_most(1.0, "benchmark"), waiting():
            time.sleep(1.3)
        found.append("done")

    if place == "main thread":
        stage()
    else:
        thread = threading.Thread(target=stage)
        thread.start()
        thread.join()
    assert found == ["done"]


def test_limits_of_nothing_are_refused_all_at_once(run_quickly):
    names = [f"limits.{entry.name}" for entry in fields(LimitsConfig)]
    run = run_quickly("model=vocoder", "mode=dynamic", "stages=[load]", *(f"{name}=0" for name in names))
    refused(run, "above 0", *(f"{name}: 0" for name in names))
