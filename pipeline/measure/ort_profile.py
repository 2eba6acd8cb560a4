"""Where the time of a model goes, from ONNX Runtime's own profiler."""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.measure.child_process import machine_lock, run_child
from pipeline.measure.ort_trace import Event, Inference, Kernel, Shape, inferences_of, read_events
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.sample import Sample

# Their time is the time of the nodes in their bodies, which are listed themselves.
CONTAINERS = frozenset({"If", "Loop", "Scan"})


@dataclass(frozen=True)
class NodeProfile:
    """One node of the graph that ran.

    Attributes:
        name: its name; a fusion gives new ones where the graph was optimised.
        op_type: of the node that ran, for example FusedConv.
        ms: mean time in one inference, over all calls.
        share: of the time of all nodes, 0 to 1.
        calls: how often one inference runs it: more than once in a loop, a fraction where a branch decides.
        input_shapes: of its last call, without weights that ONNX Runtime has packed and inputs that are left out.
        output_shapes: of its last call.
    """

    name: str
    op_type: str
    ms: float
    share: float
    calls: float
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Profile:
    """Where the time of an inference goes.

    Attributes:
        ops: op type -> share of the time of all nodes, 0 to 1, largest first; of the medians over inferences.
        nodes: in order of their first call.
        run_ms: mean time of an inference under the profiler, which slows it down.
        halves: the same shares of every second inference, and of the others: alike on a quiet machine. Empty for one inference.
    """

    ops: dict[str, float]
    nodes: tuple[NodeProfile, ...]
    run_ms: float
    halves: tuple[dict[str, float], ...] = ()


def profile_ops(
    model: Path,
    sample: Sample,
    *,
    threads: int = 1,
    runs: int = 5,
    trace: Path | None = None,
    runtime: OtherRuntime | None = None,
) -> Profile:
    """Profile a model on one sample, in a process of its own and in a directory that is gone afterwards.

    Args:
        model: the ONNX file.
        sample: the inputs.
        threads: intra-op threads.
        runs: number of inferences that count; one more goes before them.
        trace: where to keep the Chrome trace (chrome://tracing, Perfetto), if it is wanted.
        runtime: the ONNX Runtime that it runs in; None: that of this process.

    Raises:
        StageError: the model does not load, or does not run on the sample.
    """
    return _profiles(model, sample, threads, [{"runs": runs, "optimize": True}], trace, runtime)[0]


def profile_ops_and_shapes(model: Path, sample: Sample, *, threads: int = 1, runs: int = 5) -> tuple[Profile, Profile]:
    """Profile a model on one sample as `profile_ops` does, and as the file has it.

    Returns:
        The profile of the model as it runs in production; and that of one inference of the graph as the file has it, under its
        own node names and with the shapes of all inputs (to count MACs; its times are of no interest).

    Raises:
        StageError: the model does not load, or does not run on the sample.
    """
    in_production, as_written = _profiles(
        model, sample, threads, [{"runs": runs, "optimize": True}, {"runs": 1, "optimize": False}]
    )
    return in_production, as_written


def _profiles(
    model: Path,
    sample: Sample,
    threads: int,
    wanted: list[dict[str, int]],
    trace: Path | None = None,
    runtime: OtherRuntime | None = None,
) -> list[Profile]:
    """Return the profiles of several sessions of one process; the trace of the first is kept, if it is wanted."""
    with tempfile.TemporaryDirectory(prefix="profile-") as name, machine_lock(runtime):
        folder = Path(name)
        result = run_child(
            folder,
            "profile",
            [sample],
            f"The profile of {model.name} on sample {sample.id!r}",
            runtime=runtime,
            model=str(model.resolve()),
            threads=threads,
            wanted=wanted,
            prefix=str(folder / "trace"),
        )
        profiles = [read_trace(read_events(Path(written))) for written in result["traces"]]
        if trace is not None:
            trace.unlink(missing_ok=True)  # never through a link
            shutil.copyfile(result["traces"][0], trace)
    return profiles


def read_trace(events: list[Event]) -> Profile:
    """Sum up a trace of ONNX Runtime's profiler, without its first inference."""
    inferences = inferences_of(events)[1:]
    runs = len(inferences)
    calls: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in (kernel for inference in inferences for kernel in inference.kernels):
        if kernel.op_type not in CONTAINERS:
            calls[kernel.node].append(kernel)
    shares = _shares(inferences)
    total_us = sum(kernel.spent_us for group in calls.values() for kernel in group) or 1.0
    nodes = []
    for name, group in calls.items():
        spent_us, last = sum(kernel.spent_us for kernel in group), group[-1]
        nodes.append(
            NodeProfile(
                name=name,
                op_type=last.op_type,
                ms=spent_us / runs / 1000.0,
                share=spent_us / total_us,
                calls=len(group) / runs,
                input_shapes=last.input_shapes,
                output_shapes=last.output_shapes,
            )
        )
    return Profile(
        ops=dict(sorted(shares.items(), key=lambda item: -item[1])),
        nodes=tuple(nodes),
        run_ms=sum(inference.spent_us for inference in inferences) / runs / 1000.0,
        halves=(_shares(inferences[::2]), _shares(inferences[1::2])) if runs > 1 else (),
    )


def _shares(inferences: Sequence[Inference]) -> dict[str, float]:
    """Return each operator's share of the time: of the medians over inferences, which one interruption does not move."""
    spent: list[dict[str, float]] = []
    for inference in inferences:
        ops: dict[str, float] = defaultdict(float)
        for kernel in inference.kernels:
            if kernel.op_type not in CONTAINERS:
                ops[kernel.op_type] += kernel.spent_us
        spent.append(ops)
    medians = {op: median(ops.get(op, 0.0) for ops in spent) for op in dict.fromkeys(op for ops in spent for op in ops)}
    total = sum(medians.values()) or 1.0
    return {op: value / total for op, value in medians.items()}
