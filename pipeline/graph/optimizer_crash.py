"""Does ONNX Runtime end the process when it optimizes a graph? No exception tells: a process of its own has to be asked."""

import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from pipeline.graph.large_models import is_large, save_with_external_data

OPEN = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


def ends_the_process(model: onnx.ModelProto) -> bool:
    """Return whether a process that opens the graph, with all optimizers, is ended by a signal. Takes about half a second."""
    with tempfile.TemporaryDirectory(prefix="optimizer-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        if is_large(model):
            save_with_external_data(model, path)
        else:
            onnx.save(model, path)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    return done.returncode not in (0, 1)  # 1: an exception, which whoever opens it next gets as well
