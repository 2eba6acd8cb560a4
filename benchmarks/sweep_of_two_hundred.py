"""What a long sweep leaves behind in its process: memory, file descriptors, threads and temporary files, over 200 small jobs.

    python benchmarks/sweep_of_two_hundred.py

The real command, with `mode=static` of a network of two convolutions and another seed in each job. The process of the sweep is
looked at from outside as jobs end; the other process, in which graphs are opened first, is one of each job.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
LOOKED_AT = (10, 50, 100, 150, 200)  # jobs that have ended
CHANNELS, FRAMES, SAMPLES = 16, 40, 4


def write_model(folder: Path) -> list[str]:
    """Write a small graph and its data; return the settings that name them."""
    rng = np.random.default_rng(0)
    ends = [helper.make_tensor_value_info(name, 1, [1, CHANNELS, "n"]) for name in ("x", "y")]
    weights = [
        numpy_helper.from_array(rng.standard_normal((CHANNELS, CHANNELS, 3)).astype(np.float32), name) for name in ("a", "b")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="first", pads=[1, 1]),
        helper.make_node("Relu", ["h"], ["r"], name="cut"),
        helper.make_node("Conv", ["r", "b"], ["y"], name="second", pads=[1, 1]),
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    for name in ("calibration", "evaluation"):
        arrays = {f"{k}/x": rng.standard_normal((1, CHANNELS, FRAMES + k)).astype(np.float32) for k in range(SAMPLES)}
        np.savez(folder / f"{name}.npz", **arrays)
    return [
        "model=onnx", f"model.path='{folder / 'model.onnx'}'", "mode=static", "calibration=arrays",
        f"calibration.path='{folder / 'calibration.npz'}'", f"evaluation.path='{folder / 'evaluation.npz'}'",
    ]  # fmt: skip


def seen(process: psutil.Process, temporary: Path) -> tuple[float, int, int, int]:
    """Return the megabytes, descriptors and threads of a process, and how many temporary files there are."""
    files = sum(path.is_file() for path in temporary.rglob("*"))
    return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads(), files


def main() -> None:
    """Run the sweep, and print a row at each number of ended jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("overrides", nargs="*", help="of the runs, such as cache.enabled=false")
    asked = parser.parse_args()
    jobs = asked.jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        temporary, results = folder / "tmp", folder / "sweep"
        temporary.mkdir()
        command = [
            sys.executable, str(ROOT / "run.py"), "-m", *write_model(folder), f"seed=range({jobs})",
            "stages=[load,quantize,evaluate]", f"hydra.sweep.dir='{results}'", f"cache.dir='{folder / 'cache'}'",
            *asked.overrides,
        ]  # fmt: skip
        environment = os.environ | {"TMPDIR": str(temporary)}
        log = (folder / "log").open("w")
        sweep = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        process, waiting = psutil.Process(sweep.pid), [count for count in LOOKED_AT if count <= jobs]
        print("| jobs | resident, MB | descriptors | threads | temporary files |\n|---|---|---|---|---|")
        while waiting and sweep.poll() is None:
            if sum(1 for _ in (results / "jobs").glob("*.json")) >= waiting[0]:
                memory, descriptors, threads, files = seen(process, temporary)
                print(f"| {waiting.pop(0)} | {memory:.1f} | {descriptors} | {threads} | {files} |", flush=True)
            time.sleep(0.1)
        if sweep.wait() != 0:
            sys.exit((folder / "log").read_text(encoding="utf-8")[-2000:])
        left = [str(path.relative_to(temporary)) for path in temporary.rglob("*")]
        print(f"exit status 0; temporary files left: {left or 'none'}")


if __name__ == "__main__":
    main()
