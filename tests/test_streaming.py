"""A streaming model: calibrated and judged on whole sequences, fp32 and quantized each with its own states."""

import io

import numpy as np
import onnx
import pytest
from rich.console import Console

from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import CalibrationConfig, EvaluationConfig
from pipeline.data.calibration_set import CalibrationSet
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluate.over_time import OverTime
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.session import open_session
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.onnx_file import OnnxFile
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_log import RunLog
from pipeline.report.evaluation_schema import EvaluationReport
from pipeline.report.schema import Report
from pipeline.report.terminal import print_report
from pipeline.sample import Sample

CELL = """cell (float[1, 32] x, float[1, 64] past) => (float[1, 32] y, float[1, 64] present) {
    [inward] given = MatMul (x, w)
    [onward] kept = MatMul (past, r)
    sum = Add (given, kept)
    present = Tanh (sum)
    [outward] y = MatMul (present, v)
}"""
INTEGRATOR = """integrator (float[1, 16] x, float[1, 16] state) => (float[1, 16] y, float[1, 16] new_state) {
    kept = Mul (state, decay)
    new_state = Add (kept, x)
    y = Identity (new_state)
}"""
MODEL = ("model=onnx", "model.path=cell.onnx", "mode=static")
DATA = ("calibration=arrays", "calibration.path=calib.npz", "evaluation.path=eval.npz")
SHORT = ("benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2", "evaluation.node_samples=2")
STEPS = (40, 25, 31, 60, 44, 52)


def noise(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def write_cell(folder, make_weight, build, write_arrays):
    """Write a recurrent cell, and sequences of several lengths, into a folder."""
    onnx.save(build(CELL, w=make_weight(32, 64), r=make_weight(64, 64), v=make_weight(64, 32)), folder / "cell.onnx")
    for name, seed in (("calib", 1), ("eval", 2)):
        write_arrays(folder / f"{name}.npz", {f"{name}_{k}": {"x": noise(n, 1, 32, seed=seed)} for k, n in enumerate(STEPS)})


@pytest.fixture
def cell(tmp_path, make_weight, build, write_arrays):
    """Return a folder of a recurrent cell and its data."""
    write_cell(tmp_path, make_weight, build, write_arrays)
    return tmp_path


@pytest.fixture(scope="module")
def judged(tmp_path_factory, make_weight, build, write_arrays, run_in):
    """Return a run of all stages on whole sequences."""
    folder = tmp_path_factory.mktemp("streaming")
    write_cell(folder, make_weight, build, write_arrays)
    return run_in(folder, *MODEL, *DATA, *SHORT, "model.step_ms=10").succeeded()


def by_hand(path, x, states_of=None):
    """Return the outputs and states of a cell over a sequence; its own states, or those given for each step."""
    session, state = open_session(path), np.zeros((1, 64), np.float32)
    outputs, states = [], []
    for step, frame in enumerate(x):
        y, state = session.run(["y", "present"], {"x": frame, "past": state if states_of is None else states_of[step]})
        outputs.append(y)
        states.append(state)
    return np.array(outputs), np.array(states)


def test_the_error_over_the_steps_is_that_of_a_loop_written_out_here(judged):
    found = judged.report["evaluation"]
    with np.load(judged.folder / "eval.npz") as arrays:
        given = [arrays[f"{sample['id']}/x"] for sample in found["per_sample"]]
    [quantized] = judged.directory.glob("*.int8.onnx")
    sums = np.zeros((3, 10))
    for x in given:
        before, states = by_hand(judged.folder / "cell.onnx", x)
        after, _ = by_hand(quantized, x)
        alone, _ = by_hand(quantized, x, [np.zeros((1, 64), np.float32), *states[:-1]])
        for row, values in enumerate((before, after - before, alone - before)):
            sums[row] += [np.square(part.astype(np.float64)).sum() for part in np.array_split(values, 10)]
    own, one_step = (10 * np.log10(sums[0] / noise) for noise in sums[1:])
    over_time = found["over_time"]["y"]
    np.testing.assert_allclose(over_time["tenths"], own, atol=0.01)
    np.testing.assert_allclose(over_time["one_step"], one_step, atol=0.01)
    expected = [own[0], np.median(own), own[-1]]
    np.testing.assert_allclose([over_time[key] for key in ("first", "median", "last")], expected, atol=0.01)
    assert not (over_time["grows"] and np.median(own) - own[-1] < 1)
    assert found["steps"] == sum(map(len, given))


def test_the_outputs_decide_and_the_states_stand_beside_them(judged):
    found = judged.report["evaluation"]
    assert found["states"] == {"present": "past"}
    assert "sequences start with the states past [1, 64] from zeros." in judged.report["notes"]
    assert set(found["outputs"]) == {"y", "present"}
    assert found["metrics"]["relative_error"]["quantized"] == pytest.approx(found["outputs"]["y"]["relative_error"])
    assert "output" not in found["metrics"]["relative_error"]
    assert found["one_call"]["y"]["sqnr_db"] > 10


def test_the_terminal_and_the_page_tell_of_steps_and_of_growth(judged):
    steps = judged.report["evaluation"]["steps"]
    assert f"{steps} steps of 3 sequences, each model with the states that it has left itself" in " ".join(
        judged.stdout.split()
    )
    assert "Error over the steps: signal to noise in dB" in judged.stdout
    page = (judged.directory / "report.html").read_text(encoding="utf-8")
    assert "Error over the steps" in page


def test_a_steady_step_is_timed_and_gives_the_real_time_factor(judged):
    [measured] = judged.report["benchmark"].values()
    [(label, latency)] = measured["lengths"].items()
    assert label == "median"
    assert latency["audio_seconds"] == 0.01
    assert latency["sample"].split(", step ")[1] in {str(steps // 2) for steps in STEPS}  # from the middle of a sequence
    assert measured["rtf"] == pytest.approx(latency["quantized_ms"] / 10)


def test_ranges_see_the_states_of_the_beginning_the_middle_and_the_end(cell, source_of):
    source = source_of(onnx.load(cell / "cell.onnx"))
    model = LoadedModel(OnnxFile("onnx", str(source.path)).with_graphs({"model": source}), {"model": source}, threads=1)
    x = noise(400, 1, 32)
    np.savez(cell / "long.npz", **{"long/x": x})
    config = CalibrationConfig(kind=CalibrationKind.arrays, path=str(cell / "long.npz"))
    found = CalibrationSet(model, config, 0, RunLog())
    calls = found["model"]
    steps = [int(call.id.rpartition(" ")[2]) for call in calls]
    assert steps[:16] == list(range(16))
    assert len(steps) == 64
    assert steps[-1] == 399
    assert any(150 < step < 250 for step in steps)
    _, states = by_hand(cell / "cell.onnx", x)
    for step, call in zip(steps[1:], calls[1:], strict=True):
        np.testing.assert_allclose(call.inputs["past"], states[step - 1], atol=1e-6)
    assert found.description == "64 steps of 1 sample of arrays"
    assert [sample.id for sample in found.entry] == ["long"]


def test_what_inspect_and_the_doctor_print_is_a_setting_that_works(cell, run_quickly):
    model = onnx.load(cell / "cell.onnx")
    renamed = {"past": "past.0/key:0", "present": "present.0/key:0"}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    model.graph.input[1].name, model.graph.output[1].name = renamed.values()
    onnx.save(model, cell / "cell.onnx")
    run = run_quickly("model=onnx", "model.path=cell.onnx", "mode=dynamic", "stages=[load,inspect]").succeeded()
    [seen] = run.report["inspect"].values()
    assert seen["states"] == {"present.0/key:0": "past.0/key:0"}
    setting, data = seen["advice_on_states"]
    assert "arrays <sequence>/x of shape (steps, 1, 32)" in data
    given = setting.split("'")[1]
    assert given.startswith("model.states={")
    again = run_quickly("model=onnx", "model.path=cell.onnx", "mode=dynamic", "stages=[load,inspect]", given).succeeded()
    assert again.report["inspect"]["model"]["states"] == seen["states"]


def test_of_dozens_of_states_the_terminal_shows_the_worst():
    states = {f"new_{k}": f"cache_{k}" for k in range(20)}
    outputs = {name: {"sqnr_db": 10.0 + k} for k, name in enumerate(states)} | {"y": {"sqnr_db": 30.0}}
    report, printed = Report("done", evaluation=EvaluationReport(1, {}, outputs, states=states, steps=5)), io.StringIO()
    print_report(report, "outputs/here", Console(file=printed, width=200, color_system=None))
    text = printed.getvalue()
    assert "new_5" in text
    assert "new_6" not in text
    assert "14 further states have a better signal to noise" in text


def test_without_data_noise_goes_through_the_loop(cell, run_quickly):
    run = run_quickly(*MODEL, "calibration=random", "stages=[load,quantize,evaluate]", "calibration.samples=4").succeeded()
    assert run.report["calibrated_on"] == "64 steps of 4 random samples"
    assert run.report["evaluation"]["steps"] == 4 * 16
    cut = run_quickly(*MODEL, "calibration=random", "stages=[load,quantize,evaluate]", "model.hop=1").succeeded()
    assert cut.report["evaluation"]["steps"] == 4 * 16


def test_noise_that_does_not_suit_a_streaming_model_says_what_to_give(tmp_path, build, run_quickly):
    window = """window (float[n, m] x, float[1, 4] h) => (float[n, 3] y, float[1, 4] new_h) {
        y = Slice (x, zero, three, one) checked = Reshape (x, whole) new_h = Add (h, checked)
    }"""
    ends = {"zero": np.array([0]), "three": np.array([3]), "one": np.array([1]), "whole": np.array([1, 4])}
    onnx.save(build(window, **ends), tmp_path / "window.onnx")
    run = run_quickly("model=onnx", "model.path=window.onnx", "mode=dynamic", "stages=[load,inspect]")
    assert run.exit_code == 2
    assert "To calibrate and evaluate on whole sequences, without the states: arrays <sequence>/x" in " ".join(
        run.stderr.split()
    )
    given = run_quickly("model=onnx", "model.path=window.onnx", "mode=dynamic", "stages=[load,inspect]", "model.chunk=4")
    assert given.succeeded().report["inspect"]["model"]["states"] == {"new_h": "h"}


# Growth


@pytest.fixture
def evaluated(source_of, build, run_directory):
    """Return a function: two decays of an integrator, sequences -> the evaluation, and what was warned of."""

    def run(before, after, sequences):
        source, other = (source_of(build(INTEGRATOR, decay=np.float32(decay)), f"d{decay}") for decay in (before, after))
        model = LoadedModel(OnnxFile("onnx", str(source.path)).with_graphs({"model": source}), {"model": source}, threads=1)
        artifact, run_log = Artifact("model", other.path, "", 1, 1, {}, (), {}), RunLog()
        items = [EvaluationSample(Sample(f"s{k}", {"x": x})) for k, x in enumerate(sequences)]
        config = EvaluationConfig(kind=EvaluationKind.tensors)
        found = evaluate(model, {"model": artifact}, items, config, run_directory, run_log, seed=0)
        return found.over_time["y"], run_log.warnings

    return run


def test_an_error_that_is_not_forgotten_grows(evaluated):
    found, warnings = evaluated(1.0, 0.999, [np.ones((300, 1, 16), np.float32)])
    assert found.grows
    assert found.first > found.median > found.last + 1
    assert any(warning.startswith("y: its error grows with the length of what is heard") for warning in warnings)


def test_an_error_that_is_forgotten_does_not_grow(evaluated):
    found, warnings = evaluated(0.5, 0.45, [noise(300, 1, 16), noise(200, 1, 16)])
    assert not found.grows
    assert abs(found.median - found.last) < 1
    assert warnings == []


def test_silence_at_the_end_is_not_taken_for_growth():
    reference, over_time = noise(300, 16), OverTime()
    reference[-30:] *= 0.01
    own, one_step = (reference + 0.001 * noise(300, 16, seed=seed) for seed in (1, 2))
    over_time.add({"y": reference}, {"y": own}, {"y": one_step}, ())
    found = over_time.results()["y"]
    assert found.last == pytest.approx(found.median - 40, abs=1)
    assert not found.grows


def test_an_end_that_is_worse_without_a_trend_is_not_clear():
    reference, levels = np.ones((100, 16), np.float32), [1, 3, 1, 3, 1, 3, 1, 3, 1, 3]
    error = np.repeat(np.float32(levels), 10)[:, None] * 0.001 * noise(100, 16)
    over_time = OverTime()
    over_time.add({"y": reference}, {"y": reference + error}, {"y": reference + 0.001 * noise(100, 16, seed=1)}, ())
    found = over_time.results()["y"]
    assert found.last < found.median - 1
    assert found.grows is None


def test_sequences_and_single_calls_may_stand_side_by_side(cell, run_quickly, write_arrays):
    call = {"x": noise(1, 32), "past": noise(1, 64)}
    samples = {f"s{k}": {"x": noise(20, 1, 32, seed=k)} if k % 2 else call for k in range(6)}
    for name in ("calib", "eval"):
        write_arrays(cell / f"{name}.npz", samples)
    run = run_quickly(*MODEL, *DATA, *SHORT).succeeded()
    reported = run.report["samples"]["report"]
    assert run.report["evaluation"]["steps"] == 20 * sum(int(name[1]) % 2 for name in reported)


# The search


@pytest.fixture
def loss(source_of, build):
    """Return a function: two decays, samples -> what a search would say that the second loses."""

    def run(before, after, samples):
        source = source_of(build(INTEGRATOR, decay=np.float32(before)))
        model = LoadedModel(OnnxFile("onnx", str(source.path)).with_graphs({"model": source}), {"model": source}, threads=1)
        config = EvaluationConfig(kind=EvaluationKind.tensors)
        evaluator = LossEvaluator(model, "model", [EvaluationSample(one) for one in samples], config, "relative_error", seed=0)
        return evaluator, evaluator.loss(build(INTEGRATOR, decay=np.float32(after))).loss

    return run


def integrated(x, decay):
    state, found = np.zeros(x.shape[1:]), []
    for frame in x:
        state = decay * state + frame
        found.append(state)
    return np.array(found)


def relative_error(before, after):
    return np.abs(after - before).sum() / np.abs(before).sum()


def test_a_search_loses_what_a_sequence_loses(loss):
    x = noise(80, 1, 16)
    evaluator, found = loss(0.99, 0.95, [Sample("s", {"x": x})])
    before, after = integrated(x, np.float32(0.99)), integrated(x, np.float32(0.95))
    assert found == pytest.approx(relative_error(before, after), rel=1e-3)
    assert len(evaluator.calls[0]) == 2
    assert not evaluator.of_single_calls


def test_a_search_takes_samples_of_single_calls_as_one_stream(loss):
    x, zero = noise(30, 1, 16), np.zeros((1, 16), np.float32)
    evaluator, found = loss(0.99, 0.95, [Sample(f"s{k}", {"x": frame, "state": zero}) for k, frame in enumerate(x)])
    before, after = integrated(x, np.float32(0.99)), integrated(x, np.float32(0.95))
    of_calls = [relative_error(*pair) for pair in zip(before, after, strict=True)]
    assert found == pytest.approx(np.mean(of_calls), rel=1e-3)
    assert not evaluator.of_single_calls


# Detectors


def test_a_detector_is_judged_by_its_decisions_as_well(source_of, build, run_directory):
    detector = """detector (float[1, 1] x, float[1, 1] level) => (float[1, 1] speech, float[1, 1] new_level) {
        kept = Mul (level, decay)
        new_level = Add (kept, x)
        speech = Sigmoid (new_level)
    }"""
    source, other = (source_of(build(detector, decay=np.float32(decay)), f"d{decay}") for decay in (0.9, 0.8))
    model = LoadedModel(OnnxFile("onnx", str(source.path)).with_graphs({"model": source}), {"model": source}, threads=1)
    x = noise(200, 1, 1)
    items, config = [EvaluationSample(Sample("s", {"x": x}))], EvaluationConfig(kind=EvaluationKind.tensors)
    artifacts = {"model": Artifact("model", other.path, "", 1, 1, {}, (), {})}
    found = evaluate(model, artifacts, items, config, run_directory, RunLog(), seed=0).metrics
    levels = [integrated(x, np.float32(decay)).ravel() for decay in (0.9, 0.8)]
    active = levels[0] >= 0
    pairs = levels[1][active][:, None] > levels[1][~active][None, :]
    assert found["decision_auc"]["quantized"] == pytest.approx(np.mean(pairs))
    assert 0 < found["segment_f1"]["quantized"] < 1


# What does not fit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("model.states={presnt: past}",), "model.states: the graph has no output 'presnt'. Did you mean present?"),
        (("model.states={present: x}",), "model.states.present: the output is of shape [1, 64], but 'x' takes [1, 32]."),
        (("model.states={}",), "evaluation.path: sample 'eval_0' lacks the input 'past'"),
        (("model.chunk=3",), "evaluation.path: sample 'eval_0', input 'x': of shape [40, 1, 32], one axis more than the graph"),
        (("model.hop=0",), "model.hop: 0 is out of limits; allowed: null or at least 1."),
        (("model.initial_states=none.npz",), "model.initial_states: "),
        (("model.chunk=[3]",), "model.chunk"),
        (
            ("evaluation.labels=labels.npy",),
            "evaluation.labels: a class is of a single call, but sample 'eval_0' is of 40 steps.",
        ),
    ],
)
def test_what_does_not_fit_is_one_error_that_says_so(cell, run_quickly, settings, message):
    np.save(cell / "labels.npy", np.zeros(len(STEPS), np.int64))
    run = run_quickly(*MODEL, *DATA, *settings)
    assert run.exit_code == 2
    assert message in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_a_real_denoiser_is_judged_on_whole_recordings(tmp_path, real_case, run_quickly, write_arrays):
    path = real_case("gtcrn_simple") / "model.onnx"
    for name in ("calib", "eval"):
        write_arrays(tmp_path / f"{name}.npz", {f"{name}_{k}": {"mix": noise(1, 257, 24, 2, seed=k)} for k in range(2)})
    run = run_quickly("model=onnx", f"model.path={path}", *DATA, "stages=[load,quantize,evaluate]", "mode=static").succeeded()
    found = run.report["evaluation"]
    assert found["states"] == {"conv_cache_out": "conv_cache", "tra_cache_out": "tra_cache", "inter_cache_out": "inter_cache"}
    assert found["steps"] == 24
    assert set(found["over_time"]) == {"enh"}
