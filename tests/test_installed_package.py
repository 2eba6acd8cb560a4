"""`pip install .` gives a command that runs from any directory, with its settings, models and clips in the package."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import COMMAND_LIMIT_S

SOURCES = ("pipeline", "conf", "data", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repo):
    """Return a wheel, built from a copy of the sources so that the repository stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (repo / name).is_dir():
            shutil.copytree(repo / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(repo / name, sources)
    new_enough = int(version("setuptools").partition(".")[0]) >= 77  # as pyproject.toml asks; else pip fetches one
    pip(folder, "wheel", "--no-deps", *(["--no-build-isolation"] if new_enough else []), "-w", str(folder), str(sources))
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return a function that runs the installed command in an empty directory: arguments -> what it did."""
    site = tmp_path_factory.mktemp("site")
    pip(site, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel))

    def run(folder, *arguments):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HYDRA_")}
        return subprocess.run(
            [sys.executable, str(site / "bin" / "speech-quantize"), *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(site), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT_S,
        )

    return run


def pip(folder, *arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_what_a_run_needs_and_not_how_the_models_were_made(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packed = {Path(name).relative_to("pipeline/packed").as_posix() for name in names if name.startswith("pipeline/packed/")}
    assert {"conf/config.yaml", "conf/mode/static.yaml", "data/models/asr/model.onnx", "data/models/asr/tokens.txt"} <= packed
    assert not any(name.startswith("data/recipes") for name in packed)
    assert not any(name.endswith(".pyc") for name in names)


def test_the_installed_command_quantizes_a_model_that_ships_from_an_empty_directory(installed, tmp_path):
    done = installed(tmp_path, "model=vocoder", "mode=dynamic", "stages=[load,quantize]")
    assert done.returncode == 0, done.stderr
    [directory] = tmp_path.glob("outputs/vocoder/dynamic/*")
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "done"
    assert (directory / "vocoder.int8.onnx").is_file()
    # The paths mean the same files in any installation and in the repository.
    read = [Path(entry["path"]) for entry in report["inputs"]]
    assert Path("data/models/vocoder/vocos.onnx") in read
    assert not any(path.is_absolute() for path in read)
    assert OmegaConf.load(directory / "config.yaml").model.path == "data/models/vocoder/vocos.onnx"


def test_without_arguments_it_shows_its_help_and_makes_nothing(installed, tmp_path):
    done = installed(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "speech-quantize model=matcha mode=static" in done.stdout
    assert "run.py" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_with_status_2_and_one_sentence(installed, tmp_path):
    done = installed(tmp_path, "mode=statik")
    assert done.returncode == 2
    assert "mode=statik: no such option" in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_answers_for_the_installed_command(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "speech-quantize mode=st")
    monkeypatch.setenv("COMP_POINT", "99")
    assert installed(tmp_path, "--shell-completion", "query=bash").stdout.split() == ["mode=static"]
