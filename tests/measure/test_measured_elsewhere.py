"""The speed of a file for another family of processors is no verdict on it, and says so wherever it is told."""

from pipeline.config.choices import Target
from pipeline.quantize.target import measured_elsewhere, target_of


def other(target):
    return Target.x86 if target is Target.arm else Target.arm


def test_a_file_for_this_machine_is_measured_where_it_will_run():
    assert measured_elsewhere(None) is None
    assert measured_elsewhere(target_of(None)) is None


def test_a_run_for_another_processor_says_so_beside_its_speed_in_terminal_page_and_report(user_files, run_quickly, users_model):
    target = other(target_of(None))
    quick = ("benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2", "stages=[load,quantize,benchmark]")
    data = ("calibration.path=calib.npz", "evaluation.path=eval.npz")
    run = run_quickly(*users_model, *data, "mode=static", f"mode.target={target.name}", *quick).succeeded()
    words = measured_elsewhere(target)
    assert words in ("measured on x86: says nothing of ARM", "measured on ARM: says nothing of x86")
    assert run.report["benchmark"]["model"]["elsewhere"] == words
    [verdict] = [line for line in run.stdout.splitlines() if "times" in line and "fp32" in line and "model static" in line]
    assert words in " ".join(run.stdout.split())
    assert "speed" in verdict
    assert words in (run.directory / "report.html").read_text(encoding="utf-8")
