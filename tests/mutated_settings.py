"""Settings, and a saved run's config.yaml, that tests/fuzz.py mutates by seeds, and what a run does with them."""

import functools
import random
from pathlib import Path

from hydra import compose
from omegaconf import OmegaConf

from pipeline.command_line.override_text import protected
from pipeline.config.compose import read_run_config, save_config, to_plain, to_run_config
from pipeline.config.composition_error import composition_error
from pipeline.config.readers import unread
from pipeline.data.implied_kind import with_implied_kind
from pipeline.errors import ConfigError
from pipeline.paths import with_portable_paths
from pipeline.record.run_directory import RunDirectory
from pipeline.runner import run_stages
from tests.mutated_bytes import NUMBERS, REPO, mutated_bytes

MODES = ("dynamic", "static", "weight_only", "fp16", "optimize")


def mutated_settings(seed: int) -> list[str]:
    """Return a command line of settings that exist, with values that may be anything."""
    rng = random.Random(seed)
    model, mode = rng.choice(("onnx", "onnx", "vocoder", "asr", "matcha")), rng.choice((*MODES, "auto"))
    given = [f"model={model}", f"mode={mode}"]
    if model == "onnx":
        given.append(f"model.path={REPO}/tests/exported/{rng.choice(('vocos', 'hifigan'))}.onnx")
    names = [*setting_names(model, mode), "graph_modes.encoder", "typo", "model._target_", "mode.kind"]
    numbers = [str(number) for number in NUMBERS]
    values = [
        *numbers, "1.5", "nan", "inf", "1e999", "true", "false", "null", "[]", "{}", "[1,2]", "[a,null]", "{a: 1}",
        "'${oc.env:HOME}'", "${seed}", "${model.name}", "x", "''", "'<b>'", "名", "minmax", "int8", "[Conv]", "['*']", "[load]",
        "a b", "'a=b'", "\\", "[", "data/models/asr/model.onnx", "/dev/null", "/", "." * 300,
    ]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(names)
        if rng.random() < 0.1:
            key = mutated_bytes(key.encode(), rng).decode("utf-8", "replace")
        given.append(f"{rng.choice(('', '', '', '+', '++', '~'))}{key}={rng.choice(values)}")
    return given


@functools.cache
def setting_names(model: str, mode: str) -> list[str]:
    """Return the full names of all settings."""
    names = []

    def walk(values: dict, prefix: str) -> None:
        for key, value in values.items():
            names.append(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(composed([f"model={model}", f"mode={mode}"]), resolve=False), "")
    return names


def run_config(seed: int, folder: Path) -> None:
    """Compose mutated settings and run the load stage, or a small model; or read a mutated config.yaml as `rerun` does."""
    rng = random.Random(f"how {seed}")
    if rng.random() < 0.25:
        text = composed_text()
        (folder / "config.yaml").write_bytes(mutated_bytes(text.encode(), rng))
        read_run_config(folder / "config.yaml")
        return
    settings = mutated_settings(seed)
    if settings[0] == "model=onnx" and settings[1] != "mode=auto" and rng.random() < 0.5:
        read = [f"calibration.{name}" for name in ("samples=2", "length=8") if settings[1] == "mode=static"]
        run_settings([*settings, "evaluation.samples=2", *read, "stages=[load,quantize,evaluate]"], folder)
    else:
        run_settings([*settings, "stages=[load]"], folder)


def composed_text() -> str:
    """Return the config.yaml of a run."""
    return save_config(to_plain(composed(["model=vocoder", "mode=static"])))


def composed(overrides: list[str]):
    """Return what Hydra makes of settings."""
    return _composed(tuple(overrides)).copy()


@functools.lru_cache(maxsize=50)
def _composed(overrides: tuple[str, ...]):
    return compose("config", [protected(override) for override in overrides])


def run_settings(overrides: list[str], folder: Path) -> None:
    """Run settings as the command does, without the parts that print."""
    try:
        settings = composed(overrides)
    except Exception as error:
        message = composition_error(error)
        if message is None:
            raise
        raise ConfigError(message) from error
    config, plain = with_implied_kind(to_run_config(settings), to_plain(settings), overrides)
    unread(config, overrides)
    directory = RunDirectory(folder / "run")
    directory.write_text("config.yaml", save_config(with_portable_paths(plain)))
    run_stages(config, directory)
