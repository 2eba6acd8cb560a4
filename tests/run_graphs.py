"""Run graphs on the processor that this process sees, its own or an emulated one: `run_graphs.py <graphs> <results> [exact]`.

Reads every `<name>.onnx` of the first folder with its inputs, `<name>.npz`, and writes its outputs to `<name>.npz` in the
second; with `exact`, sums of products do not saturate. Imports no more than that takes: under an emulator every import takes
ten times as long.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(graphs: Path, results: Path, *, exact: bool = False) -> None:
    """Write a file of outputs for every graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    for path in sorted(graphs.glob("*.onnx")):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        with np.load(path.with_suffix(".npz")) as inputs:
            outputs = session.run(names, dict(inputs))
        np.savez(results / f"{path.stem}.npz", **dict(zip(names, outputs, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), exact=sys.argv[3:] == ["exact"])
