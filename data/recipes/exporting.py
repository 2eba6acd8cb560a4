"""What every export shares: the legacy exporter, the metadata that sherpa-onnx reads, and a check against PyTorch.

`torch.onnx.export(dynamo=False)` names nodes after the modules that made them (`/layers.0/self_attn/MatMul`), which is
what users of icefall's models know, and it uses only operators that every runtime has.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

OPSET = 17
MAX_BYTES = 6_000_000


def export(
    model: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    *,
    inputs: list[str],
    outputs: list[str],
    dynamic: dict[str, dict[int, str]],
    metadata: dict[str, str | int],
    max_bytes: int = MAX_BYTES,
) -> None:
    """Writes a model as one ONNX file.

    Args:
        model: Put into evaluation mode here; its forward takes `example`.
        example: Arguments that the exporter traces the model with.
        path: The file; its folder is made.
        inputs: Names of the graph's inputs.
        outputs: Names of the graph's outputs.
        dynamic: For each input and output, the names of the axes that vary.
        metadata: Written into the file, instead of whatever is there.
        max_bytes: A larger file is an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the legacy one, and of every Python number
        torch.onnx.export(
            model.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=dynamic,
        )
    graph = onnx.load(path)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    size = path.stat().st_size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path.name}: {size:,} bytes, {len(graph.graph.node)} nodes, sha256 {digest}")
    if size > max_bytes:
        raise ValueError(f"{path} has {size:,} bytes, more than {max_bytes:,}")


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Opens a graph for the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def largest_difference(model: nn.Module, path: Path, feeds: dict[str, torch.Tensor]) -> float:
    """Runs model and graph on the same inputs and returns the largest absolute difference of any output."""
    with torch.no_grad():
        expected = model.eval()(*feeds.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = session(path).run(None, {name: value.numpy() for name, value in feeds.items()})
    return max(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found, strict=True))
