"""Mutated models, settings, recordings and arrays: each must end well, or in an error that a user can act on.

    python tests/fuzz.py --models 10000 --configs 2000 --data 5000

A worker process takes one seed after the other; this one watches it. What is counted for every seed: `fine`, or `refused` (an
error that a user can act on), or what must not be: an exception of another kind, the end of the worker by a signal, more than
`--seconds` for one seed (in which other programs had the processor does not count), a file that was written outside of the
folder of the run. A seed says all: `--models 1 --first 4711` makes that one again, with its traceback. Nothing that was mutated
is kept. What is mutated, and how: tests/mutated_models.py, tests/mutated_settings.py, tests/mutated_data.py.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline.measure.child_process import LOCK_FILE

REPO = Path(__file__).resolve().parent.parent
WORKER = REPO / "tests" / "fuzz_worker.py"
KINDS = ("models", "configs", "data")
START_SECONDS = 60  # more, for the first seed of a worker


def ends(kind: str, first: int, count: int, seconds: float, place: Path) -> Iterator[dict]:
    """Yield what came of each seed; a worker that ends or hangs is started again behind the seed."""
    seed = first
    while seed < first + count:
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), kind, str(seed), str(first + count - seed), str(place)],
            stdout=subprocess.PIPE, stderr=None if count == 1 else subprocess.DEVNULL, cwd=place / "here",
            env=os.environ | {"TMPDIR": str(place / "tmp"), "XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(REPO)},
        )  # fmt: skip
        allowed = seconds + START_SECONDS
        with worker:
            while seed < first + count and (line := line_of(worker, allowed)):
                yield json.loads(line)
                seed, allowed = seed + 1, seconds
            if seed == first + count:
                continue
            worker.kill()
            status = worker.wait()
        yield {"seed": seed, "end": "hang" if line is None else "crash", "text": f"exit status {status}"}
        shutil.rmtree(place / f"{kind}-{seed}", ignore_errors=True)
        seed += 1


def line_of(worker: subprocess.Popen, seconds: float) -> bytes | None:
    """Return the next line that a worker prints; an empty one where it has ended, None where it has taken too long."""
    start, before = time.monotonic(), queued(worker.pid)
    while (rest := seconds + max(queued(worker.pid) - before, 0.0) - (time.monotonic() - start)) > 0.0:
        if select.select([worker.stdout], [], [], rest)[0]:
            return worker.stdout.readline()
    return None


def queued(pid: int) -> float:
    """Return the seconds that a process and its children were ready to run and had no processor; 0 where none tells."""
    found = 0
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            found += int(Path(f"/proc/{one.pid}/schedstat").read_text(encoding="ascii").split()[1])
    return found / 1e9


def listing(place: Path) -> set[str]:
    """Return what lies in a folder, without the caches of libraries."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if "cache" not in path.relative_to(place).parts[:1]}


def run_kind(kind: str, first: int, count: int, seconds: float) -> int:
    """Run seeds of one kind, and print what came of them; return how often it was what must not be."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        place = Path(name)
        for folder in ("here", "tmp", "cache"):
            (place / folder).mkdir()
        counts, wrong, start = Counter(), [], time.monotonic()
        for told in ends(kind, first, count, seconds, place):
            counts[" ".join(filter(None, (told["end"], told.get("error"))))] += 1
            if told["end"] == "refused" and told.get("status") not in (None, "failed"):
                told["end"] = f"refused, but the report says {told['status']}"
            if told["end"] not in ("fine", "refused"):
                wrong.append(told)
                print(f"{kind} {told}", flush=True)
        left = listing(place) - {"here", "tmp", f"tmp/{LOCK_FILE}"}  # the lock is of all runs of a machine, and stays
    print(f"{kind}: {count} in {time.monotonic() - start:.0f} s: {dict(counts)}; left outside: {sorted(left)[:10]}", flush=True)
    for told in wrong:
        print(f"  {told}", flush=True)
    return len(wrong) + len(left)


def main() -> int:
    """Run what is asked for; return 1 where anything came of a seed that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=120.0, help="that one seed may take")
    asked = parser.parse_args()
    counts = {kind: getattr(asked, kind) for kind in KINDS}
    return 1 if sum(run_kind(kind, asked.first, count, asked.seconds) for kind, count in counts.items() if count) else 0


if __name__ == "__main__":
    sys.exit(main())
