"""Make an ONNX speech model small and fast, and measure what that cost.

    python run.py model=matcha mode=static                  # one run
    python run.py -m model=matcha,asr mode=dynamic,static   # a sweep
    python run.py rerun=outputs/matcha/static/<timestamp>   # a past run again

`python run.py --help` lists what can be chosen. From Python: `pipeline.run(["model=matcha", "mode=static"])`.
"""

from pipeline.blas_threads import one_thread_each
from pipeline.garbage import collect_seldom
from pipeline.interruption import install

if __name__ == "__main__":
    install()  # before the libraries are imported, which takes seconds
    one_thread_each()
    collect_seldom()

import hydra
from omegaconf import DictConfig

from pipeline.cli import run_job, start
from pipeline.report.objective import Objective


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> Objective:
    """Run what Hydra composed; return the metric that `optimize_for` names, for sweepers that optimise."""
    return run_job(composed)


if __name__ == "__main__":
    start(main)
