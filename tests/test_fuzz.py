"""A few seeds of tests/fuzz.py, whose docstring tells what is counted; thousands of others are run by hand."""

import subprocess
import sys

import pytest

from tests.mutated_models import mutated_model


@pytest.mark.parametrize(("kind", "count"), [("models", 25), ("configs", 25), ("data", 100)])
def test_what_is_mutated_ends_well_or_in_an_error_that_a_user_can_act_on(repo, tmp_path, kind, count):
    command = [sys.executable, str(repo / "tests" / "fuzz.py"), f"--{kind}", str(count)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{kind}: {count} in " in done.stdout
    assert "left outside: []" in done.stdout


def test_a_seed_gives_the_same_bytes_again():
    assert [mutated_model(seed) for seed in range(8)] == [mutated_model(seed) for seed in range(8)]
    assert len({mutated_model(seed) for seed in range(8)}) == 8
