"""Files for ARM, run by ONNX Runtime for 64-bit ARM: they compute there what was measured here.

Needs an environment that `benchmarks/arm_environment.py` makes; ARM_ENVIRONMENT names its folder. `.ci/run` makes one.
"""

import os
import shutil
from pathlib import Path

import pytest

from benchmarks.arm_environment import command_in
from benchmarks.processors import Graphs, add_model
from pipeline.config.choices import Target

FOLDER = os.environ.get("ARM_ENVIRONMENT", "")
WITHIN_DB = 1


@pytest.mark.qemu
@pytest.mark.skipif(
    not (FOLDER and shutil.which("qemu-aarch64")), reason="needs ARM_ENVIRONMENT: see benchmarks/arm_environment.py"
)
@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("vocoder", "static"),
        ("hifigan", "static"),
        ("asr", "static"),
        ("asr", "dynamic"),
        ("matcha", "static"),
    ],
)
def test_a_file_for_arm_runs_there_and_is_as_good_as_was_measured_here(model, mode, tmp_path):
    """One sample of the report part; outputs that are not finite have no SQNR that is near another."""
    graphs = Graphs(tmp_path)
    add_model(graphs, model, "for ARM", {"target": Target.arm}, samples=1, mode=mode)
    found = graphs.scores({"arm": command_in(Path(FOLDER))})["for ARM"]
    assert found["here"] > 20
    assert found["arm"] == pytest.approx(found["here"], abs=WITHIN_DB)
