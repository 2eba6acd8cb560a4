"""A device that a benchmark runs on: the models and the timer go there over ssh, the figures come back, nothing stays.

OpenSSH's client does the connection, with the user's own configuration: keys, ports and jump hosts stand in ~/.ssh/config. Keys
of hosts are verified. What the remote shell is given is a constant but for the name of the Python, whose signs are restricted;
everything else goes through the connection as data (`remote_device.py`).
"""

import contextlib
import io
import json
import logging
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, StageError

log = logging.getLogger(__name__)

KEY = "benchmark.host"
PYTHON = re.compile(r"[A-Za-z0-9_./-]+")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
DEVICE_PROGRAM = Path(__file__).with_name("remote_device.py")
OPTIONS = (
    "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR", "-T",
)  # fmt: skip
RECEIVE = (  # a shell's quotes hold it, so it is one line; nothing may be read beyond the program
    "import os,sys;n=int(sys.argv[1]);b=bytearray();"
    "[b.extend(os.read(0,n-len(b)) or sys.exit(1)) for _ in iter(lambda:len(b)<n,False)];"
    "exec(compile(bytes(b),'remote_device.py','exec'))"
)


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
    _jobs: int = 0

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
        there = f"job{self._jobs}"
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        try:
            moved = {key: self._moved(value, folder, there) for key, value in job.items()}
            self._send_bytes(f"{there}/job.json", json.dumps(moved).encode())
            self._send(f"{there}/samples.npz", folder / "samples.npz")
            self._write({"op": "run", "job": there})
            told = 0
            while "done" not in (message := self._read()):
                for _ in range(told, int(message["steps"])):
                    on_step()
                told = int(message["steps"])
            for file in message["files"]:
                with (folder / file["name"]).open("wb") as target:
                    self._receive(int(file["bytes"]), target)
        except (OSError, ValueError, KeyError) as error:
            raise StageError(
                f"{KEY}: the connection to {self.device.name} broke; nothing was timed. {self._last_words()}"
            ) from error
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
            import onnx

            from pipeline.graph.source_graph import external_files

            place = f"model{len(self._sent)}"
            for beside in external_files(onnx.load(path, load_external_data=False), path.parent):
                self._send(f"{place}/{beside.relative_to(path.parent).as_posix()}", beside)  # where the graph looks for it
            self._send(f"{place}/model.onnx", path)
            self._sent[path] = f"{place}/model.onnx"
        return self._sent[path]

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

    def _last_words(self) -> str:
        return _words_of(self._process)

    def close(self) -> None:
        """End the program on the device, which removes its directory, and the connection."""
        with contextlib.suppress(OSError, ValueError):
            self._write({"op": "end"})
            self._read()
        end(self._process)


def _words_of(process: "subprocess.Popen[bytes]") -> str:
    """Close a connection, and return why it has ended."""
    said = end(process)
    return f"It said: {said}" if said else f"ssh ended with status {process.returncode}."


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


def ssh_command(host: str, python: str, config: str | None) -> list[str]:
    """Return the command of OpenSSH's client.

    Args:
        host: ssh://user@host or ssh://user@host:port.
        python: the interpreter on the device.
        config: a configuration file in the place of ~/.ssh/config; None: that one.

    Raises:
        ConfigError: one of them is not allowed.
    """
    parts = urlsplit(host)
    named = [part for part in (parts.hostname, parts.username) if part is not None]
    if parts.scheme != "ssh" or not parts.hostname or parts.path.strip("/") or not all(map(WORD.fullmatch, named)):
        raise ConfigError(f"{KEY}: {host!r} is not an address of a device; give ssh://user@host, or ssh://user@host:port.")
    if parts.password is not None:
        raise ConfigError(
            f"{KEY}: a password is not taken; use a key: ssh-copy-id {parts.username or 'user'}@{parts.hostname}."
        )
    if not PYTHON.fullmatch(python) or python.startswith("-"):
        raise ConfigError(f"{KEY}_python: {python!r} is not allowed: letters, digits and _ . / - only.")
    if config is not None and not Path(config).expanduser().is_file():
        raise ConfigError(f"benchmark.ssh_config: there is no file {config}.")
    try:
        port = ["-p", str(parts.port)] if parts.port is not None else []
    except ValueError as error:
        raise ConfigError(f"{KEY}: {host!r}: the port is a number up to 65535.") from error
    user = f"{parts.username}@" if parts.username else ""
    own = ["-F", str(Path(config).expanduser().absolute())] if config is not None else []
    program = len(DEVICE_PROGRAM.read_bytes())
    return [
        "ssh",
        *own,
        *OPTIONS,
        *port,
        "--",
        f"{user}{parts.hostname}",
        f'exec {python} -u -c "{RECEIVE}" {program} {python}',
    ]


@contextlib.contextmanager
def connected(host: str, python: str = "python3", config: str | None = None) -> Iterator[RemoteHost]:
    """Open a connection to a device for a while.

    Args:
        host: ssh://user@host or ssh://user@host:port.
        python: an interpreter there that has numpy and onnxruntime.
        config: a configuration of OpenSSH in the place of ~/.ssh/config.

    Raises:
        ConfigError: there is no connection, or the device has no Python with ONNX Runtime.
    """
    command = ssh_command(host, python, config)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(f"{KEY}: OpenSSH's client, ssh, cannot be started here: {error}.") from error
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
