"""ONNX Runtime's own format, for builds that cannot parse ONNX, with the operators that such a build must have.

ONNX Runtime's converter writes two styles. `Fixed` holds the graph as it is optimised here, integer kernels included. `Runtime`
keeps Q/DQ pairs to be fused by the client; ONNX Runtime 1.30 to 1.32 does not fuse them and computes Conv in float between
them (0.8 times fp32's speed was measured on a HiFi-GAN), so that only `Fixed` is written. And a profile in the client's
version has to show that its integers are computed as integers: 4-bit weights of a Conv, for one, are converted without a
word and cannot be read by 1.28 to 1.32.
"""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import StageError
from pipeline.interruption import run_and_end_with_us
from pipeline.measure.ort_profile import Profile, profile_ops
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.package.collect_files import PackagedGraph
from pipeline.quantize.artifact import INTEGER_KERNELS
from pipeline.sample import Sample

log = logging.getLogger(__name__)

FOLDER = "ort"
CONVERTER = "onnxruntime.tools.convert_onnx_models_to_ort"


def add_ort_format(
    folder: Path, graphs: Sequence[PackagedGraph], probes: Mapping[str, Sample], runtime: OtherRuntime, threads: int
) -> dict[str, str]:
    """Write `ort/` into a package: each graph in ONNX Runtime's format, and `required_operators.config`.

    Args:
        folder: the package.
        graphs: what is in it.
        probes: role -> a sample that its graph is run on.
        runtime: the client's ONNX Runtime.
        threads: intra-op threads.

    Returns:
        Name of a graph that was left out -> why.

    Raises:
        StageError: the converter failed.
    """
    place = folder / FOLDER
    place.mkdir()
    done = run_and_end_with_us(
        [sys.executable, "-m", CONVERTER, str(folder), "--output_dir", str(place), "--optimization_style", "Fixed"],
        stdin=subprocess.DEVNULL, text=True, errors="replace",
    )  # fmt: skip
    log.debug("%s: %s", CONVERTER, done.stderr)
    if done.returncode != 0:
        words = "\n".join(done.stderr.strip().splitlines()[-4:])
        raise StageError(f"package.ort: ONNX Runtime's converter failed; nothing was packed. It said:\n{words}")
    left: dict[str, str] = {}
    for graph in graphs:
        written = place / f"{Path(graph.name).stem}.ort"
        reason = _unfit(folder / graph.name, written, probes.get(graph.role), runtime, threads)
        if reason is not None:
            written.unlink(missing_ok=True)
            left[graph.name] = reason
    return left


def _unfit(original: Path, written: Path, probe: Sample | None, runtime: OtherRuntime, threads: int) -> str | None:
    """Return why a converted graph is not fit for a version of ONNX Runtime; None where it is."""
    if not written.is_file():
        return "the converter wrote no file"
    if probe is None:
        return None
    before = profile_ops(original, probe, threads=threads, runs=1, runtime=runtime)
    try:
        after = profile_ops(written, probe, threads=threads, runs=1, runtime=runtime)
    except StageError as error:
        return f"ONNX Runtime {runtime.version} does not run it: {str(error).splitlines()[-1]}"
    integers = [_integer_nodes(profile) for profile in (before, after)]
    if integers[1] < integers[0]:
        return (
            f"ONNX Runtime {runtime.version} computes {integers[1]} of its nodes with integers, and {integers[0]} in the .onnx"
        )
    return None


def _integer_nodes(profile: Profile) -> int:
    return sum(node.op_type.startswith(INTEGER_KERNELS) for node in profile.nodes)
