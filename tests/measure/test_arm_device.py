"""A device with an ARM processor, emulated, over ssh: the chain goes to its end, and its times are said to mean nothing.

Needs an environment that `benchmarks/arm_environment.py` makes; ARM_ENVIRONMENT names its folder. `.ci/run` makes one.
ARM_MODELS=asr,vocoder tries the recogniser too, which takes a minute of CPU time.
"""

import os
import shutil
from pathlib import Path

import pytest

FOLDER = os.environ.get("ARM_ENVIRONMENT", "")
MODELS = os.environ.get("ARM_MODELS", "vocoder").split(",")
QUICK = ("benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2", "evaluation.samples=2", "calibration.samples=2")


@pytest.fixture
def arm_python(there):
    """Return a program that is a Python of an ARM processor."""
    home, program = Path(FOLDER).resolve(), there / "python-arm"
    program.write_text(
        f'#!/bin/sh\nexport TMPDIR={there} PYTHONHOME={home}/root/usr PYTHONPATH="{home}/site:$PYTHONPATH"\n'
        f'exec qemu-aarch64 -cpu cortex-a76 -L {home}/root {home}/root/usr/bin/python3.11 "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.qemu
@pytest.mark.skipif(
    not (FOLDER and shutil.which("qemu-aarch64")), reason="needs ARM_ENVIRONMENT: see benchmarks/arm_environment.py"
)
@pytest.mark.parametrize("model", MODELS)
def test_the_chain_runs_with_an_emulated_arm_device_whose_times_mean_nothing(model, device, arm_python, run_quickly, left):
    host = (f"benchmark.host={device[0]}", f"benchmark.ssh_config={device[1]}", f"benchmark.host_python={arm_python}")
    run = run_quickly(f"model={model}", "mode=static", "mode.target=arm", *host, *QUICK).succeeded()
    [(name, measured)] = run.report["benchmark"].items()
    assert "aarch64; emulated: its times mean nothing" in measured["device"]
    assert measured["pairs"] >= 5
    assert any("emulated: its times mean nothing" in warning for warning in run.report["warnings"])
    assert not any("mode.target" in warning for warning in run.report["warnings"])
    assert [stage["status"] for stage in run.report["stages"]] == ["done"] * len(run.report["stages"])
    assert run.report["evaluation"]["samples"] >= 1
    assert left() == set(), name
