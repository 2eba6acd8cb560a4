"""The core that `pip install` gives without extras: what it leaves out is not missed, and a short run imports little."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
HEAVY = ("matplotlib", "numba", "scipy", "jiwer", "rapidfuzz", "onnxruntime.quantization", "onnxruntime.transformers")
EXTRAS = ("numba", "llvmlite", "matplotlib", "espeakng_loader", "sympy", "onnx_ir")

# runs the script that is its first argument, and then names what was imported
TELL_IMPORTS = """
import atexit, runpy, sys
sys.argv.pop(0)
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(folder, *arguments, options=(), script=REPO / "run.py"):
    surroundings = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder), "COLUMNS": "200"}
    line = [sys.executable, *options, str(script), *arguments]
    return subprocess.run(line, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


def run_without(folder, libraries, *arguments):
    """Run the command as where libraries are not installed; return its report, its page and what it said."""
    where = folder / "run"
    done = command(
        folder, ",".join(libraries), *arguments, f"hydra.run.dir={where}", script=REPO / "tests" / "without_libraries.py"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((where / "report.json").read_text(encoding="utf-8"))
    return report, (where / "report.html").read_text(encoding="utf-8"), done.stdout + done.stderr


def test_a_run_that_only_inspects_imports_no_heavy_library(tmp_path):
    done = command(tmp_path, "model=asr", "stages=[load,inspect]", options=("-c", TELL_IMPORTS))
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    assert "pipeline.stages.inspect" in imported
    assert "onnxruntime" in imported
    assert not imported.intersection(HEAVY)


def test_without_extras_all_stages_run_and_each_missing_library_is_named_once(
    tmp_path, make_user_files, users_model, users_data
):
    make_user_files(tmp_path)
    short = ("benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2")
    report, page, said = run_without(
        tmp_path, EXTRAS, *users_model, *users_data, "mode=static", "mode.method=entropy", "mode.min_channels=1", *short
    )
    assert report["status"] == "done"
    assert report["artifacts"][0]["quantized_nodes"]
    assert said.count("speech-quantization-pipeline[report]") == 1
    assert said.count("speech-quantization-pipeline[fast]") == 1
    assert "Speed of model in multiples of fp32" in page  # the text of a picture
    assert "matplotlib is not installed" in page


def test_a_page_of_an_inspected_model_draws_bars_without_matplotlib(tmp_path, make_user_files, users_model, users_data):
    make_user_files(tmp_path)
    _, page, said = run_without(tmp_path, EXTRAS, *users_model, *users_data, "stages=[load,inspect]")
    assert "not installed" not in page + said
    [bars] = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert "Time of model by family of operators" in bars
    assert len(re.findall("<rect", bars)) == len(re.findall('text-anchor="end"', bars)) > 0


def test_a_run_that_only_inspects_reads_no_more_samples_than_it_needs(tmp_path, run_quickly):
    report = run_quickly("model=asr", "stages=[load,inspect]").succeeded().report
    assert {part: len(ids) for part, ids in report["samples"].items()} == {"selection": 16, "report": 16}
    assert report["warnings"] == []
