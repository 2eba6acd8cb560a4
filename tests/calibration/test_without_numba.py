"""Without Numba: the same ranges, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("ranges_of_distributions.py")


def ranges_without(*libraries):
    line = [sys.executable, "-W", "error", PROGRAM, *libraries]
    surroundings = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}
    done = subprocess.run(line, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ranges_without_numba_are_the_same_to_the_last_bit():
    compiled, interpreted = ranges_without(), ranges_without("numba", "llvmlite")
    assert len(compiled) == 8 * 2 * 3 * 3
    assert interpreted == compiled
