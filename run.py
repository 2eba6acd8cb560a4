"""Make an ONNX speech model small and fast, and prove what that cost.

    python run.py model=matcha mode=static                  # one run
    python run.py -m model=matcha,asr mode=dynamic,static   # a sweep
    python run.py rerun=outputs/matcha/static/<timestamp>   # a past run again

`python run.py --help` lists what can be chosen.
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pipeline.cli import composition_error, report_failure
from pipeline.config.compose import register_schemas
from pipeline.errors import PipelineError
from pipeline.record.run_directory import register_resolver

failures: list[PipelineError] = []

register_schemas()
register_resolver()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run what was composed. In a sweep, a run that fails does not stop the others."""
    from pipeline.cli import execute

    try:
        execute(composed, HydraConfig.get())
    except PipelineError as error:
        report_failure(error)
        failures.append(error)


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach this place instead of Hydra's own handler
    try:
        main()
    except Exception as error:
        message = composition_error(error)
        if message is None:
            raise
        report_failure(message)
        sys.exit(2)
    sys.exit(2 if failures else 0)
