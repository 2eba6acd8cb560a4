"""What `mode.reconstruct=true` brings on a trained HiFi-GAN V2 with everything quantized that `mode=static` quantizes.

    python benchmarks/reconstruction.py      # prints the table of docs/reconstruction.md

Needs PyTorch (the extra `reconstruct`) and the model and data of ../shared/real, which are not part of the repository. Log-mel
L1 to fp32's audio on the four evaluation samples that a run reports on; seconds are of the processor, on one thread.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from algorithms import REAL, run_config  # noqa: E402

from pipeline.config.compose import register_schemas  # noqa: E402
from pipeline.config.mode_settings import StaticConfig  # noqa: E402
from pipeline.data.arrays import read_arrays  # noqa: E402
from pipeline.graph.prepare import prepare  # noqa: E402
from pipeline.graph.session import infer, open_session  # noqa: E402
from pipeline.metrics.audio_metrics import log_mel_l1_of_audio  # noqa: E402
from pipeline.ptq.algorithms import fit, fold, rewrite  # noqa: E402
from pipeline.ptq.reconstruction.reconstruct import WHOLE_STEPS, Effort, reconstruct  # noqa: E402
from pipeline.quantize.calibrated_ranges import measured_ranges  # noqa: E402
from pipeline.quantize.static import plan_static, quantize_static, tensors_to_calibrate  # noqa: E402
from pipeline.stages.load import load  # noqa: E402

RATE_HZ = 22_050
REPORTED = ("1", "2", "3", "5")  # the report part of a run, with its default seed
METHODS = {"minmax": [], "percentile 99.99": ["mode.method=percentile", "mode.percentile=99.99"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=WHOLE_STEPS, help="for all of the graph")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    register_schemas()
    print("| ranges | log-mel L1, as quantized | reconstructed | held-back calibration, before -> after | seconds |")
    print("|---|---|---|---|---|")
    for method in arguments.methods:
        print(row_of(method, Effort(1e9, whole_steps=arguments.steps)), flush=True)


def row_of(method: str, effort: Effort) -> str:
    """Return one line of the table."""
    config = run_config("onnx", [f"model.path={REAL / 'model.onnx'}", *METHODS[method]])
    mode = config.mode
    assert isinstance(mode, StaticConfig)
    [source] = load(config.model).graphs.values()
    samples = list(read_arrays(REAL / "calib.npz", "calibration", 24))
    unseen = [one for one in read_arrays(REAL / "eval.npz", "evaluation", 8) if one.id in REPORTED]
    prepared = prepare(source, opset=None, needed_opset=13, preprocess=True)
    original = prepared.model
    fold(original, mode)
    plan = plan_static(prepared, mode)
    reference = rewrite(original, plan, mode, samples)
    tensors = tensors_to_calibrate(reference, plan, mode)
    ranges = measured_ranges(reference, samples, tensors, mode, threads=1, seed=0, on_sample=lambda _: None)
    fitted = fit(reference, plan, mode, ranges, samples)
    quantized = quantize_static(onnx.ModelProto.FromString(fitted.SerializeToString()), plan, mode, ranges)
    right = audio_of(reference, unseen)
    before = distance(right, audio_of(quantized, unseen))
    start = time.process_time()
    found = reconstruct(quantized, fitted, reference, samples, effort, bar=bar, rate_hz=RATE_HZ)
    seconds = time.process_time() - start
    held = found.parts[-1]
    after = distance(right, audio_of(quantized, unseen))
    return (
        f"| {method} | {before:.4f} | {after:.4f} | {held.held_back_before:.3f} -> {held.held_back_after:.3f} | {seconds:.0f} |"
    )


def audio_of(model: onnx.ModelProto, samples: list) -> list[np.ndarray]:
    """Return what a graph makes of each sample."""
    session = open_session(model)
    return [next(iter(infer(session, sample).values())).reshape(-1) for sample in samples]


def distance(right: list[np.ndarray], made: list[np.ndarray]) -> float:
    """Return the mean log-mel L1 over samples, in nats."""
    return float(np.mean([log_mel_l1_of_audio(one, other, RATE_HZ) for one, other in zip(right, made, strict=True)]))


@contextlib.contextmanager
def bar(part: str, steps: int) -> Iterator[Callable[[], None]]:
    """Say on standard error what is done."""
    print(f"{part}: {steps} steps", file=sys.stderr, flush=True)
    yield lambda: None


if __name__ == "__main__":
    main()
