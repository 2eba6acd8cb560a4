"""What a sweep of twelve ways to quantize the recogniser takes, beside one of its runs: what the cache is worth.

    python benchmarks/sweep_of_twelve.py

One run with an empty cache, the sweep with another empty cache, and the sweep again, with the timings of the first one taken
again. Each is the real command in a process of its own; times are ratios to the one run, of the clock and of the processor.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONE = ["model=asr", "mode=static", "benchmark=quick"]
TWELVE = ["-m", *ONE, "mode.method=minmax,percentile,entropy", "mode.per_channel=true,false", "mode.symmetric=true,false"]


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        one = took(ONE, folder / "cache of one", folder / "one")
        first = took(TWELVE, folder / "cache of the sweep", folder / "first")
        again = took([*TWELVE, "benchmark.reuse=true"], folder / "cache of the sweep", folder / "again")
    print("| | clock, s | CPU, s | of one run: clock | CPU | of the first sweep: clock | CPU |\n|---|---|---|---|---|---|---|")
    for name, seconds in {"one run": one, "the sweep": first, "the sweep again": again}.items():
        ratios = [f"{s / o:.2f}" for base in (one, first) for s, o in zip(seconds, base, strict=True)]
        print("|", " | ".join([name, *(f"{s:.1f}" for s in seconds), *ratios]), "|")


def took(arguments: Sequence[str], cache: Path, results: Path) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor that a command takes.

    Raises:
        CalledProcessError: it failed.
    """
    place = "hydra.sweep.dir" if "-m" in arguments else "hydra.run.dir"
    command = [sys.executable, str(ROOT / "run.py"), *arguments, f"cache.dir='{cache}'", f"{place}='{results}'"]
    environment = os.environ | {"XDG_CACHE_HOME": f"{cache} of libraries"}
    begun, used = time.perf_counter(), _cpu_of_children()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun, _cpu_of_children() - used


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
