"""A device that a benchmark runs on: the models and the timer go there, the figures come back, nothing stays.

A program of the user's makes the connection: ssh or adb (`device_address.py`). Everything goes through it as data
(`remote_device.py`).
"""

import contextlib
import io
import json
import logging
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, StageError
from pipeline.measure.device_address import KEY, command_of
from pipeline.own_time import waiting

log = logging.getLogger(__name__)

DEVICE_PROGRAM = Path(__file__).with_name("remote_device.py")


class LostDeviceError(StageError):
    """The connection to a device broke."""


@dataclass(frozen=True)
class Device:
    """What is at the other end.

    Attributes:
        name: as the user named it.
        processor: its name.
        machine: its architecture, such as aarch64.
        onnxruntime: version.
        emulated: it is no such processor, but a program that behaves like one: its times mean nothing.
    """

    name: str
    processor: str
    machine: str
    onnxruntime: str
    emulated: bool

    @property
    def words(self) -> str:
        """What it is, for reports."""
        times = "; emulated: its times mean nothing" if self.emulated else ""
        return f"{self.name}: {self.processor}, {self.machine}{times}"


@dataclass
class RemoteHost:
    """An open connection.

    Attributes:
        device: what it leads to.
    """

    device: Device
    _process: "subprocess.Popen[bytes]"
    _folder: str
    _sent: dict[Path, str] = field(default_factory=dict)
    _places: int = 0
    _jobs: int = 0
    _idle: bool = True  # the other end waits for a message

    def run(self, folder: Path, on_step: Callable[[], None]) -> tuple[int, str]:
        """Do the job of a folder on the device; what it writes appears in the folder.

        Args:
            folder: with job.json and samples.npz; the files that the job names are sent too, once each.
            on_step: called for each step that is done.

        Returns:
            The exit status and the last words of the child.

        Raises:
            StageError: the connection broke.
        """
        self._jobs += 1
        self._idle = False
        there = f"job{self._jobs}"
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        try:
            moved = {key: self._moved(value, folder, there) for key, value in job.items()}
            self._send_bytes(f"{there}/job.json", json.dumps(moved).encode())
            self._send(f"{there}/samples.npz", folder / "samples.npz")
            self._write({"op": "run", "job": there, "kept": bool(job.get("kept"))})
            told = 0
            while "done" not in (message := self._read()):
                for _ in range(told, int(message["steps"])):
                    on_step()
                told = int(message["steps"])
            for file in message["files"]:
                with (folder / file["name"]).open("wb") as target:
                    self._receive(int(file["bytes"]), target)
        except (OSError, ValueError, KeyError) as error:
            raise self._lost() from error
        self._idle = True
        result = folder / "result.json"
        if result.is_file():  # the names of traces
            text = result.read_text(encoding="utf-8").replace(f"{self._folder}/{there}", str(folder))
            result.write_text(text, encoding="utf-8")
        return int(message["done"]), str(message["stderr"])

    def _moved(self, value: Any, folder: Path, there: str) -> Any:  # noqa: ANN401  JSON
        """Return a value of a job as the device understands it: files of this machine are sent."""
        if not isinstance(value, str):
            return value
        if value.startswith(str(folder)):
            return value.replace(str(folder), f"{self._folder}/{there}")
        path = Path(value)
        return f"{self._folder}/{self._model(path)}" if path.is_absolute() and path.is_file() else value

    def _model(self, path: Path) -> str:
        """Return the name of a model on the device; it is sent where it is not there yet, with its weights beside it."""
        if path not in self._sent:
            self._sent[path] = self._file(path)
        return self._sent[path]

    def _file(self, path: Path) -> str:
        import onnx

        from pipeline.graph.source_graph import external_files

        place = self._next_place()
        for beside in external_files(onnx.load(path, load_external_data=False), path.parent):
            self._send(f"{place}/{beside.relative_to(path.parent).as_posix()}", beside)  # where the graph looks for it
        self._send(f"{place}/model.onnx", path)
        return f"{place}/model.onnx"

    def _next_place(self) -> str:
        self._places += 1
        return f"model{self._places}"

    def send_file(self, path: Path) -> str:
        """Send a model with its weights, and return its name on the device.

        Raises:
            LostDeviceError: the connection broke.
        """
        with self._connection():
            return self._file(path)

    def send_graph(self, content: bytes) -> str:
        """Send the contents of a model, and return its name on the device.

        Raises:
            LostDeviceError: the connection broke.
        """
        name = f"{self._next_place()}/model.onnx"
        with self._connection():
            self._send_bytes(name, content)
        return name

    def remove(self, name: str) -> None:
        """Remove a model that was sent.

        Raises:
            LostDeviceError: the connection broke.
        """
        with self._connection():
            self._write({"op": "remove", "name": name.partition("/")[0]})

    def alone(self, *, wanted: bool) -> None:
        """Keep other benchmarks out on the device from now on, or no longer; wait until none is there.

        Raises:
            LostDeviceError: the connection broke.
        """
        with self._connection(), waiting():
            self._write({"op": "alone", "wanted": wanted})
            self._read()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        self._idle = False
        try:
            yield
        except (OSError, ValueError) as error:
            raise self._lost() from error
        self._idle = True

    def _lost(self) -> LostDeviceError:
        said = _words_of(self._process)
        return LostDeviceError(f"{KEY}: the connection to {self.device.name} broke; nothing was timed. {said}")

    def _send(self, name: str, path: Path) -> None:
        self._write({"op": "file", "name": name, "bytes": path.stat().st_size})
        assert self._process.stdin is not None
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                self._process.stdin.write(block)
        self._process.stdin.flush()

    def _send_bytes(self, name: str, content: bytes) -> None:
        self._write({"op": "file", "name": name, "bytes": len(content)})
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def _receive(self, count: int, target: io.BufferedWriter) -> None:
        assert self._process.stdout is not None
        while count:
            block = self._process.stdout.read(min(count, 1 << 20))
            if not block:
                raise ValueError("the end of the connection")
            count -= target.write(block)

    def close(self) -> None:
        """End the program on the device, which removes its directory, and the connection.

        In the middle of a job or of a file, where an interruption has ended what waits for it, it is the end of the connection
        that ends the program.
        """
        if self._idle:
            with contextlib.suppress(OSError, ValueError):
                self._write({"op": "end"})
                self._read()
        end(self._process)


def _words_of(process: "subprocess.Popen[bytes]") -> str:
    """Close a connection, and return why it has ended."""
    said = end(process)
    return f"It said: {said}" if said else f"{_program(process.args)} ended with status {process.returncode}."


def _program(command: Any) -> str:  # noqa: ANN401  what subprocess takes
    return str(command[0])


def end(process: "subprocess.Popen[bytes]") -> str:
    """Close a connection, and return the last line of errors; the program at its other end then removes what it has."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is None or process.stderr.closed:
        return ""
    with process.stderr:
        lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextlib.contextmanager
def connected(host: str, python: str = "python3", config: str | None = None) -> Iterator[RemoteHost]:
    """Open a connection to a device for a while.

    Args:
        host: ssh://user@host, ssh://user@host:port, adb://serial or adb://.
        python: an interpreter there that has numpy and onnxruntime.
        config: a configuration of OpenSSH in the place of ~/.ssh/config.

    Raises:
        ConfigError: there is no connection, or the device has no Python with ONNX Runtime.
    """
    command = command_of(host, python, config, len(DEVICE_PROGRAM.read_bytes()))
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(f"{KEY}: {_program(command)}, which connects to {host}, cannot be started here: {error}.") from error
    assert process.stdin is not None and process.stdout is not None
    try:
        try:
            process.stdin.write(DEVICE_PROGRAM.read_bytes())
            process.stdin.flush()
            hello = json.loads(process.stdout.readline())["hello"]
            remote = RemoteHost(_device(host, python, hello), process, hello["folder"])
            remote._send_bytes("code.zip", _code())
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{KEY}: no connection to {host}. {_words_of(process)}") from error
        try:
            yield remote
        finally:
            remote.close()
    finally:
        end(process)


def _device(host: str, python: str, hello: Mapping[str, Any]) -> Device:
    if "error" in hello:
        raise ConfigError(f"{KEY}: {python} of {host} has no ONNX Runtime that starts: {hello['error']}. It needs numpy too.")
    return Device(host, hello["processor"], hello["machine"], hello["onnxruntime"], bool(hello["emulated"]))


def _code() -> bytes:
    """Return this package as a zip file that Python imports from; what is run of it needs numpy and onnxruntime alone."""
    package = Path(__file__).resolve().parents[1]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            archive.write(path, path.relative_to(package.parent))
    return content.getvalue()
