"""What ends a sweep: its runs are compared, in the terminal and on a page beside its multirun.yaml."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class CompareSweep(Callback):
    """Collects the runs of a sweep and compares them at its end. Hydra makes one at every start: it imports little."""

    def __init__(self) -> None:
        """Start without runs."""
        self._directories: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ANN401
        """Note where a job has written."""
        del config, kwargs
        if job_return.hydra_cfg is not None:  # working_dir is where the program was started: jobs do not change into theirs
            self._directories.append(Path(job_return.hydra_cfg.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Print the comparison, and write comparison.json and comparison.html into the sweep's directory."""
        del kwargs
        if not self._directories:
            return
        from pipeline.errors import ConfigError
        from pipeline.report.compare_runs import compare_directories, write_comparison
        from pipeline.report.comparison_table import comparison_table, wide_console

        console = wide_console()
        try:
            comparison = compare_directories(self._directories, config.sort_by)
        except ConfigError as error:  # the runs are done: they are shown in the usual order
            console.print(f"{error} Sorted by speed instead.", style="yellow", soft_wrap=True, highlight=False)
            comparison = compare_directories(self._directories)
        page = write_comparison(comparison, Path(config.hydra.sweep.dir))
        console.print(comparison_table(comparison))
        console.print(f"comparison: {page}", style="dim", soft_wrap=True, highlight=False)
