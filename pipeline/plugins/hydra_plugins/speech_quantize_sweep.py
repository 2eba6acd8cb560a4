"""`hydra/sweeper=basic`, in the place of Hydra's: the same jobs, and a worker that is killed does not end the sweep."""

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from pipeline.config.sweepers import PatientBasicSweeperConf

ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=PatientBasicSweeperConf, provider="speech-quantize")


class PatientBasicSweeper(BasicSweeper):
    """Runs the product of all values."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has composed."""
        from pipeline.lost_workers import PatientLauncher

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = PatientLauncher(self.launcher, Path(config.hydra.sweep.dir))  # type: ignore[assignment]
