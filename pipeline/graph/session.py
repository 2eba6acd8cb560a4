"""ONNX Runtime sessions: the one place that builds their options and opens them, on the CPU and quiet."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as capi

from pipeline.errors import DataError
from pipeline.graph.rehearsal import rehearse, rehearsing
from pipeline.interruption import ended_by_signals
from pipeline.outside_errors import unless_memory_is_used_up
from pipeline.sample import Array, Outputs, Sample

if TYPE_CHECKING:  # the process that measures speed and memory opens files only, and does without onnx
    import onnx

Optimization = Literal["all", "basic", "none"]

LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
FLOAT_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
}
FATAL, ERROR = 4, 3  # levels of ONNX Runtime's log

ORT_ERRORS = (capi.Fail, capi.InvalidArgument, capi.InvalidGraph, capi.NotImplemented, capi.RuntimeException)
"""What ONNX Runtime raises where a graph or its inputs do not fit; these share no public base class."""


class RunError(DataError):
    """ONNX Runtime does not run a graph on a sample.

    Attributes:
        sample: the id of the sample.
        reason: ONNX Runtime's own words, on one line.
    """

    def __init__(self, sample: str, error: BaseException) -> None:
        """Take the sample's id, and what was raised."""
        self.sample, self.reason = sample, " ".join(str(error).split())
        super().__init__(f"sample {sample!r}: ONNX Runtime does not run the graph on it: {self.reason}")


def session_options(
    threads: int = 1,
    *,
    optimization: Optimization = "all",
    save_optimized: Path | None = None,
    profile: Path | None = None,
    memory_pattern: bool = True,
    shared_arena: bool = False,
    spinning: bool = True,
    prepacking: bool = True,
    log_level: int = FATAL,
) -> onnxruntime.SessionOptions:
    """Return the options of a session.

    Args:
        threads: intra-op threads.
        optimization: `basic`: only what leaves standard ONNX operators (folding, removal of identities); `none`: the graph
            runs as it is written, and opens in half the time.
        save_optimized: write the graph here as ONNX Runtime has optimised it.
        profile: write a trace of every run to a file whose name begins so, when `end_profiling` is called.
        memory_pattern: plan memory by the shapes of the first run; of no use where samples come in many shapes.
        shared_arena: share memory with other sessions of this kind; each keeps its own otherwise.
        spinning: idle threads wait actively, which is faster and takes the cores from other sessions.
        prepacking: keep a copy of weights in the layout of a kernel.
        log_level: messages of this level and above are printed.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = log_level
    options.graph_optimization_level = LEVELS[optimization]
    options.enable_mem_pattern = memory_pattern
    if save_optimized is not None:
        options.optimized_model_filepath = str(save_optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if shared_arena:
        _register_shared_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not spinning:
        for pool in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    if not prepacking:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def open_session(
    model: "Path | bytes | onnx.ModelProto",
    threads: int = 1,
    *,
    optimization: Optimization = "all",
    save_optimized: Path | None = None,
    profile: Path | None = None,
    without: Sequence[str] = (),
    sample: Sample | None = None,
    known: bool = False,
    quick: bool = False,
) -> onnxruntime.InferenceSession:
    """Open a session with the options that most of them have.

    In a run, a graph that has not been opened yet is opened in another process first: see `pipeline.graph.rehearsal`.

    Args:
        model: a file, its contents, or a graph in memory.
        threads: intra-op threads.
        optimization: see `session_options`.
        save_optimized: see `session_options`.
        profile: see `session_options`.
        without: optimisers that are not to run.
        sample: the other process runs the graph on it as well.
        known: leave the other process out: it has opened this graph, if with fewer outputs or as a part of another.
        quick: take it as the other process has optimised it, where that was to be opened `again`. The kernels are the same, but
            weights lie elsewhere in memory: a model ran up to a tenth faster than as a client opens it.

    Raises:
        EndedError: the other process did not survive it, or exceeded its limits.
    """
    options = session_options(threads, optimization=optimization, save_optimized=save_optimized, profile=profile)
    with _source_of(model) as source:
        if not known:
            rehearse(source, threads, optimization=optimization, without=without, sample=sample)
        asked = rehearsing() if quick else None
        optimized = asked and asked.optimized(source, threads, optimization=optimization, without=without)
        if optimized:
            with contextlib.suppress(*ORT_ERRORS, capi.InvalidProtobuf):  # then as it was given
                return _open(optimized, session_options(threads, optimization="none"))
        return _open(source, options, without)


def opens_quickly(model: "Path | bytes | onnx.ModelProto", threads: int = 1) -> bool:
    """Return whether `open_session` can open a graph quickly, which was to be opened `again`."""
    with _source_of(model) as source:
        asked = rehearsing()
        return asked is not None and bool(asked.optimized(source, threads, optimization="all"))


def rehearse_model(
    model: "Path | bytes | onnx.ModelProto",
    threads: int = 1,
    *,
    optimization: Optimization = "all",
    sample: Sample | None = None,
    again: bool = False,
) -> bool:
    """Open a graph in the other process alone, and run it where there is a sample.

    Args:
        model: a file, its contents, or a graph in memory.
        threads: intra-op threads.
        optimization: see `session_options`.
        sample: what it is run on.
        again: it will be opened again and again, which `open_session` can then do in a quarter of the time (`quick`).

    Returns:
        Whether there is another process, and ONNX Runtime raised nothing there.

    Raises:
        EndedError: it did not survive, or exceeded its limits. What ONNX Runtime raises is no error here.
    """
    with _source_of(model) as source:
        return rehearse(source, threads, optimization=optimization, sample=sample, again=again)


def open_with(model: "Path | onnx.ModelProto", options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a session with options of its own, in this process alone."""
    with _source_of(model) as source:
        return _open(source, options)


@contextlib.contextmanager
def _source_of(model: "Path | bytes | onnx.ModelProto") -> Iterator[str | bytes]:
    """Give what ONNX Runtime opens: a path or bytes; a graph above 2 GB goes through a file, which it maps into memory."""
    if isinstance(model, Path | bytes):
        yield str(model) if isinstance(model, Path) else model
        return
    from pipeline.graph.large_models import is_large, save_with_external_data

    if not is_large(model):
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="large-model-", ignore_cleanup_errors=True) as folder:
        yield str(save_with_external_data(model, Path(folder) / "model.onnx")[0])


def _open(
    source: str | bytes, options: onnxruntime.SessionOptions, without: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    with _memory_told():
        return onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
        )


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Let ONNX Runtime's errors that say that memory is used up be a `MemoryError`: they name a node, which is not at fault."""
    try:
        yield
    except Exception as error:
        unless_memory_is_used_up(error)
        raise


@cache
def _register_shared_arena() -> None:
    """Give the sessions that ask for it one arena, once a process; each would keep the memory of its own graph otherwise."""
    memory = capi.OrtMemoryInfo("Cpu", capi.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, capi.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, capi.OrtArenaCfg(0, 0, -1, -1))


def run_inference(session: onnxruntime.InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Any]:
    """Run one inference, which a signal ends, and return the outputs of some names.

    Raises:
        MemoryError: there is not enough memory for it.
    """
    options = onnxruntime.RunOptions()
    with _memory_told(), ended_by_signals(partial(setattr, options, "terminate", True)):
        found: list[Any] = session.run(list(names), dict(feeds), options)
    return found


def infer(session: onnxruntime.InferenceSession, sample: Sample) -> Outputs:
    """Run one inference and return its outputs by name: see `named_arrays`.

    Raises:
        RunError: the graph does not run on the sample.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        found = run_inference(session, names, feeds_for(session, sample.inputs))
    except (*ORT_ERRORS, ValueError, RuntimeError) as error:
        raise RunError(sample.id, error) from error
    return {name: array for output, value in zip(names, found, strict=True) for name, array in named_arrays(output, value)}


def named_arrays(name: str, value: object) -> Iterator[tuple[str, Array]]:
    """Yield the arrays that an output holds, each with a name.

    A tensor has the output's name; the tensors of a sequence are `name[0]`, `name[1]`, ...; the values of a map are
    `name[key]`; an optional output that is empty has none.
    """
    match value:
        case np.ndarray() | np.generic():
            yield name, np.asarray(value)
        case list():
            for position, part in enumerate(value):
                yield from named_arrays(f"{name}[{position}]", part)
        case dict():
            for key, part in value.items():
                yield from named_arrays(f"{name}[{key}]", part)
        case int() | float() | str():  # values of a map
            yield name, np.asarray(value)


def inputs_for(session: onnxruntime.InferenceSession, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return those of some arrays that a session takes: a part of a graph needs not all inputs of the whole."""
    return {value.name: arrays[value.name] for value in session.get_inputs() if value.name in arrays}


def feeds_for(session: onnxruntime.InferenceSession, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays in the types of a session's inputs: a graph in half precision may take half-precision inputs."""
    types = {value.name: FLOAT_TYPES[value.type] for value in session.get_inputs() if value.type in FLOAT_TYPES}
    return {
        name: array.astype(types[name]) if name in types and array.dtype.kind == "f" and array.dtype != types[name] else array
        for name, array in arrays.items()
    }
