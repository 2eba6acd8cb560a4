"""Hydra composes the settings of a run once, and they are those that it would have composed a second time."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.config.composed_once import SINGLE_RUN, ComposedOnce
from pipeline.hydra_hooks import register
from pipeline.paths import config_directory

NEEDED = ["model=onnx", "model.path=model.onnx"]


@pytest.fixture
def compositions(monkeypatch):
    """Return the overrides of every composition that Hydra makes."""
    made, compose = [], ConfigLoaderImpl._load_configuration_impl

    def noting(self, config_name, overrides, *rest, **named):
        made.append(list(overrides))
        return compose(self, config_name, overrides, *rest, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", noting)
    return made


def composed(overrides, *, once):
    """Return the mode that Hydra finds, and the settings that it then runs, as its command line does."""
    register()
    with initialize_config_dir(str(config_directory()), job_name="run", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        if once:
            hydra.config_loader = ComposedOnce(hydra.config_loader.config_search_path)
        mode = hydra.get_mode("config", overrides)
        overrides = overrides if mode is not None else [*overrides, SINGLE_RUN]
        return mode, OmegaConf.to_yaml(hydra.compose_config("config", overrides, mode or RunMode.RUN))


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (NEEDED, 1),
        ([*NEEDED, "mode=auto", "+hydra.job.chdir=false", "seed=3", "stages=[load]"], 1),
        ([*NEEDED, "hydra.mode=RUN"], 1),
        ([*NEEDED, "hydra.mode=MULTIRUN", "seed=1,2"], 3),  # the first time, several values are found
        ([*NEEDED, "hydra.mode=MULTIRUN"], 2),
        (["experiment=fast", "model=vocoder"], 1),
        (["experiment=article", "model=vocoder"], 2),
    ],
)
def test_a_run_is_composed_once_and_a_sweep_for_its_jobs(compositions, overrides, count):
    expected = composed(overrides, once=False)
    compositions.clear()
    assert composed(overrides, once=True) == expected
    assert len(compositions) == count


def test_a_mistake_is_told_when_it_is_run(compositions):
    with pytest.raises(ConfigCompositionException, match="nothing"):
        composed([*NEEDED, "mode.nothing=1"], once=True)
    assert len(compositions) == 1


def test_the_command_composes_a_run_once(run_quickly, users_model, user_files):
    """The settings that Hydra saves are those of the one composition, with the mode that it found."""
    del user_files
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load]").succeeded()
    saved = OmegaConf.load(run.directory / ".hydra" / "hydra.yaml").hydra
    assert saved.mode == "RUN"
    assert saved.overrides.hydra == [SINGLE_RUN]
    assert list(saved.overrides.task) == [*users_model, "mode=dynamic", "stages=[load]"]
