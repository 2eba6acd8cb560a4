"""Files for ARM, run by ONNX Runtime for 64-bit ARM: they compute there what was measured here.

Needs an environment that `benchmarks/arm_environment.py` makes; ARM_ENVIRONMENT names its folder.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.arm_environment import command_in
from pipeline.config.choices import Target
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.session import open_session
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

FOLDER = os.environ.get("ARM_ENVIRONMENT", "")
LIMIT_S = 3600  # for a program that hangs; it says nothing about speed


def sqnr_db(found, expected):
    return 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum())


@pytest.mark.qemu
@pytest.mark.skipif(
    not (FOLDER and shutil.which("qemu-aarch64")), reason="needs ARM_ENVIRONMENT: see benchmarks/arm_environment.py"
)
def test_files_for_arm_run_there_and_are_as_good_as_was_measured_here(shipped, settings, repo, tmp_path):
    for folder in ("graphs", "results"):
        (tmp_path / folder).mkdir()
    mels = Sample("probe", {"mels": np.random.default_rng(0).standard_normal((1, 80, 40)).astype(np.float32)})
    source, here = shipped("vocoder"), {}
    [expected] = open_session(source.model).run(["y"], dict(mels.inputs))
    for mode in ("static", "dynamic"):
        (tmp_path / mode).mkdir()
        samples = {source.name: [mels]}
        chosen = settings(mode, target=Target.arm)
        made = quantize({source.name: source}, chosen, samples, samples, RunDirectory(tmp_path / mode)).artifacts[source.name]
        shutil.copy(made.path, tmp_path / "graphs" / f"{mode}.onnx")
        np.savez(tmp_path / "graphs" / f"{mode}.npz", **mels.inputs)
        [here[mode]] = open_session(with_uint8_weights(onnx.load(made.path))).run(["y"], dict(mels.inputs))
    program = [repo / "tests" / "run_graphs.py", tmp_path / "graphs", tmp_path / "results"]
    done = subprocess.run(
        [*command_in(Path(FOLDER)), *map(str, program)], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for mode, measured in here.items():
        with np.load(tmp_path / "results" / f"{mode}.npz") as outputs:
            assert np.isfinite(outputs["y"]).all()
            assert sqnr_db(outputs["y"], expected) == pytest.approx(sqnr_db(measured, expected), abs=1)
