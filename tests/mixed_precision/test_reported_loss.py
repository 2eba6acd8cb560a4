"""What a search chose on some samples is reported as it is on others: on a model whose choice holds on the first alone."""

import math

import numpy as np
import onnx
import pytest

from pipeline.data.datasets import EvaluationSample
from pipeline.data.evaluation_set import split
from pipeline.sample import Sample

WIDTH, FRAMES = 128, 20
SEED = 5
IDS = [f"utterance_{number}" for number in range(20)]
LIMIT = 0.1
# Bytes that only integers fit into: as floats the weight takes 65,536. What they save is worth seven times the time of the
# graph (mode.size_weight), so that it does not matter what is faster on this machine.
SMALL = 30_000
NET = f"net (float[frames, {WIDTH}] x) => (float[frames, {WIDTH}] y) {{ [layer] y = MatMul (x, w) }}"


def loud(seed):
    """Return an input whose first feature decides the output."""
    return np.random.default_rng(seed).standard_normal((FRAMES, WIDTH)).astype(np.float32)


def quiet(seed):
    """Return an input without that feature: small weights decide, which the int8 of the large ones rounds to zero."""
    return loud(seed) * (np.arange(WIDTH) > 0)


@pytest.fixture(scope="module")
def parts():
    """Return the ids of the selection part and those of the reported part."""
    return [{item.sample.id for item in part} for part in split([EvaluationSample(Sample(id_, {})) for id_ in IDS], SEED)]


@pytest.fixture
def searched(parts, build, write_arrays, run_quickly, tmp_path):
    """Return a function: the run of a search on that model, where the selection part is loud and the other one quiet."""
    weight = np.random.default_rng(0).choice([-0.001, 0.001], (WIDTH, WIDTH)).astype(np.float32)
    weight[0] = 1
    onnx.save(build(NET, w=weight), tmp_path / "model.onnx")
    write_arrays(tmp_path / "calib.npz", {f"c{seed}": {"x": loud(100 + seed)} for seed in range(4)})
    arrays = {name: {"x": (loud if name in parts[0] else quiet)(seed)} for seed, name in enumerate(IDS)}
    write_arrays(tmp_path / "eval.npz", arrays)

    def run(*overrides):
        return run_quickly(
            "model=onnx", "model.path=model.onnx", "calibration=arrays", "calibration.path=calib.npz",
            "evaluation.path=eval.npz", "mode=auto", "mode.metric=relative_error", f"mode.max_loss={LIMIT}",
            f"mode.max_bytes={SMALL}", "mode.size_weight=10", "mode.method=minmax", "mode.optimize=false", f"seed={SEED}",
            "stages=[load,quantize,evaluate]", *overrides,
        ).succeeded()  # fmt: skip

    return run


def test_a_choice_that_loses_more_on_the_reported_samples_is_reported_with_that_loss_and_said_first(searched, parts):
    report = searched().report
    assert [set(report["samples"][part]) for part in ("selection", "report")] == parts
    found = report["search"]["model"]
    assert report["artifacts"][0]["quantized_nodes"] == {"layer": found["nodes"][0]["precision"]}
    assert found["nodes"][0]["precision"] != "fp32"
    assert found["met"], "on the samples that it saw"
    assert found["selection_loss"]["metric"] == found["report_loss"]["metric"] == "relative_error"
    assert found["selection_loss"]["samples"] == found["report_loss"]["samples"] == 10
    assert found["selection_loss"]["value"] <= LIMIT < 0.9 < found["report_loss"]["value"]
    assert found["candidates"][found["chosen"]]["loss"] == found["selection_loss"]["value"]
    [metric] = [report["evaluation"]["metrics"][name] for name in ("relative_error",)]
    assert math.isclose(metric["quantized"], found["report_loss"]["value"], rel_tol=1e-9)
    assert {sample["id"] for sample in report["evaluation"]["per_sample"]} == parts[1]
    assert report["warnings"][0].startswith("model: on the 10 samples that are reported, relative_error is +")
    assert f"above the limit of {LIMIT:g}, which the samples of the search kept" in report["warnings"][0]


def test_with_the_parts_exchanged_the_search_sees_the_loss_itself(searched, parts):
    report = searched("evaluation.exchange_parts=true").report
    assert [set(report["samples"][part]) for part in ("selection", "report")] == parts[::-1]
    found = report["search"]["model"]
    assert not found["met"]
    assert report["warnings"][0].startswith("model: NOTHING MEETS THE BUDGET")
    assert not any("samples that are reported" in warning for warning in report["warnings"])
