"""ONNX Runtime sessions, opened the same way everywhere: on the CPU, with a set number of threads, quiet."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from pipeline.sample import Outputs, Sample


def open_session(
    model: Path | onnx.ModelProto,
    threads: int = 1,
    *,
    save_optimized: Path | None = None,
    basic: bool = False,
    as_it_is: bool = False,
    without: Sequence[str] = (),
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session.

    Args:
        model: a file, or a graph in memory (below 2 GB).
        threads: intra-op threads.
        save_optimized: write the graph here as ONNX Runtime has optimised it.
        basic: only the optimisations that leave standard ONNX operators (folding, removal of identities).
        as_it_is: no optimisation: for a session that only shows whether a graph loads, in half the time.
        without: optimisers that are not to run.
        profile: write a trace of every run to a file whose name begins so, when `end_profiling` is called.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if basic:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if as_it_is:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_optimized is not None:
        options.optimized_model_filepath = str(save_optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without))


def infer(session: onnxruntime.InferenceSession, sample: Sample) -> Outputs:
    """Run one inference and return its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(sample.inputs)), strict=True))
