"""The process that takes the seeds of tests/fuzz.py, one after the other, and prints what came of each as a line of JSON."""

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import traceback
from pathlib import Path

from hydra import initialize_config_dir

import pipeline.runner
from pipeline.errors import PipelineError
from pipeline.graph.rehearsal import rehearsals
from pipeline.hydra_hooks import register
from pipeline.limits import LimitsConfig, holding
from pipeline.paths import config_directory
from tests.mutated_data import run_data
from tests.mutated_models import run_model
from tests.mutated_settings import run_config

RUNS = {"models": run_model, "configs": run_config, "data": run_data}


def work(kind: str, first: int, count: int, place: Path) -> None:
    """Run seeds, and print one line for each."""
    register_settings()
    pipeline.runner.environment = functools.cache(pipeline.runner.environment)  # it asks git
    real, sys.stdout = sys.stdout, sys.stderr
    with holding(LimitsConfig(opening_seconds=20, memory_mb=1500)), rehearsals() as others:
        # one process for all seeds: a run of its own for each would spend its time on starting them
        pipeline.runner.rehearsals = lambda: contextlib.nullcontext(others)
        for seed in range(first, first + count):
            folder = place / f"{kind}-{seed}"
            (folder / "run").mkdir(parents=True)
            told = {"seed": seed, **end_of(kind, seed, folder, aloud=count == 1)}
            status = folder / "run" / "report.json"
            if status.is_file():
                told["status"] = json.loads(status.read_text(encoding="utf-8"))["status"]
            os.chdir(place / "here")
            shutil.rmtree(folder)
            print(json.dumps(told), file=real, flush=True)
    os._exit(0)


def end_of(kind: str, seed: int, folder: Path, *, aloud: bool) -> dict[str, str]:
    """Run one seed in a folder, and say what came of it."""
    try:
        RUNS[kind](seed, folder)
    except PipelineError as error:
        return {"end": "refused", "error": type(error).__name__, "text": str(error)[:300]}
    except BaseException as error:
        if aloud:
            traceback.print_exc()
        frames = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(frames) if "/pipeline/" in frame.filename), frames[-1])
        text = f"{type(error).__name__}: {str(error)[:200]}"
        return {"end": "traceback", "text": text, "where": f"{Path(last.filename).name}:{last.lineno}"}
    return {"end": "fine"}


def register_settings() -> None:
    """Let Hydra know the settings, as the command does."""
    logging.disable(logging.CRITICAL)
    register()
    initialize_config_dir(str(config_directory()), version_base="1.3")


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
