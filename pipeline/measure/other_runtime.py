"""The ONNX Runtime that a benchmark runs in: the one of this process, or another version in its child processes.

What is fast differs between versions, and a client carries its own: sherpa-onnx 2.0.1 has ONNX Runtime 1.28.2, where
ConvInteger takes several times as long as in 1.32.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from pipeline.errors import ConfigError
from pipeline.graph.runtime_versions import parse_version
from pipeline.measure.remote_host import Device, RemoteHost
from pipeline.paths import cache_directory

log = logging.getLogger(__name__)

KEY = "benchmark.runtime"
NUMPY_2 = (1, 19)  # older versions were built for numpy 1
ASK = """import json, sys, numpy, psutil, scipy, onnxruntime
print(json.dumps([onnxruntime.__version__, list(sys.version_info[:2])]))"""
OLDEST_PYTHON = [3, 11]  # that this package runs in


@dataclass(frozen=True)
class OtherRuntime:
    """Where a child process finds an ONNX Runtime.

    Attributes:
        version: of the ONNX Runtime.
        python: the interpreter.
        packages: a directory with packages that come first; None: none.
        asked: the version that was asked for, where another one of its series is used.
        device: of a benchmark on another machine.
        remote: the open connection to it; None: what the child does, it does here.
    """

    version: str
    python: str = sys.executable
    packages: Path | None = None
    asked: str | None = None
    device: Device | None = None
    remote: RemoteHost | None = None

    @property
    def note(self) -> str | None:
        """What a user must know of it."""
        if self.asked is None or self.asked == self.version:
            return None
        return (
            f"{KEY}: ONNX Runtime {self.asked} is not to be had as a package; speed is of {self.version}, of the same series."
        )

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of a child process that imports this package, wherever this process found it.

        Args:
            folder: of the child. Another Python gets the package through a link in it: the directory that holds the package
                may hold an ONNX Runtime as well, which would hide the one of that Python.
        """
        package = Path(__file__).resolve().parents[1]
        if self.python == sys.executable:
            path = [str(self.packages or ""), str(package.parent), os.environ.get("PYTHONPATH", "")]
        else:
            link = folder / "package" / package.name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(package, target_is_directory=True)
            path = [str(link.parent)]
        return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def own_runtime() -> OtherRuntime:
    """Return the ONNX Runtime of this process."""
    return OtherRuntime(onnxruntime.__version__)


def find_runtime(setting: str | None) -> OtherRuntime:
    """Return the ONNX Runtime that a setting names.

    Args:
        setting: a version, which is installed into the cache once; or the Python of an environment that has one, with numpy,
            psutil and scipy; None: that of this process.

    Raises:
        ConfigError: there is none.
    """
    if setting is None or setting == onnxruntime.__version__:
        return own_runtime()
    if os.sep in setting or Path(setting).expanduser().exists():
        return _of_python(Path(setting).expanduser())
    major_minor = parse_version(setting, KEY)
    folder = cache_directory() / "runtimes" / f"onnxruntime-{setting}-python{sys.version_info.major}.{sys.version_info.minor}"
    if not folder.is_dir():
        _install(setting, folder, old_numpy=major_minor < NUMPY_2)
    return _asked(OtherRuntime("", packages=folder, asked=setting))


def _of_python(python: Path) -> OtherRuntime:
    if not python.is_file():
        raise ConfigError(f"{KEY}: {python} is no file; give a version, or the Python of an environment: venv/bin/python.")
    return _asked(OtherRuntime("", python=str(python.absolute())))  # not resolved: a link decides the environment


def _asked(runtime: OtherRuntime) -> OtherRuntime:
    """Return a runtime with the version that it says it has."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [runtime.python, "-c", ASK], env=runtime.environment(Path(folder)), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it left no message"])[-1]
        raise ConfigError(
            f"{KEY}: {runtime.packages or runtime.python} has no ONNX Runtime that starts: {last}. It needs the packages "
            "onnxruntime, numpy, psutil and scipy."
        )
    version, python = json.loads(done.stdout.strip().splitlines()[-1])
    if python < OLDEST_PYTHON:
        raise ConfigError(f"{KEY}: {runtime.python} is Python {python[0]}.{python[1]}; it must be 3.11 or newer.")
    return OtherRuntime(version, runtime.python, runtime.packages, runtime.asked)


def _install(version: str, folder: Path, *, old_numpy: bool) -> None:
    """Install a version of ONNX Runtime into a directory of its own; it appears there when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.info("Installing ONNX Runtime %s for the benchmark into %s", version, folder)
    series = ".".join(version.split(".")[:2])
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        target = Path(place) / "packages"
        problem = _pip(target, f"onnxruntime=={version}", *(["numpy<2"] if old_numpy else []))
        if problem is not None:
            # a client may carry a version that was never published as a package
            problem = _pip(target, f"onnxruntime=={series}.*", *(["numpy<2"] if old_numpy else []))
        if problem is not None:
            raise ConfigError(
                f"{KEY}: ONNX Runtime {version} could not be installed: {problem}. Give the Python of an environment that has "
                "it instead: benchmark.runtime=venv/bin/python."
            )
        if not folder.is_dir():
            target.rename(folder)


def _pip(target: Path, *packages: str) -> str | None:
    """Install packages without what they depend on, which this environment has; return why that failed, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(target),
         *packages],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip left no message"])[-1]
