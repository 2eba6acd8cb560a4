"""Models and samples that the tests of the benchmark time, and a device: a real sshd on loopback, with keys of its own."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper, numpy_helper

from pipeline.measure.remote_device import PREFIX
from pipeline.sample import Sample

WIDTH = 160
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
WAIT_LIMIT_S = 60
DAEMON = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
"""
CLIENT = """
Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


@pytest.fixture(scope="session")
def matmul_chain():
    """Save `y = x @ W1 @ ... @ Wdepth`, x: float (frames, 160), with an element-wise op at the end; return the path."""

    def save(path, depth, op="Identity"):
        weights = np.random.default_rng(0).standard_normal((depth, WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
        nodes = [
            helper.make_node("MatMul", [f"t{k}" if k else "x", f"w{k}"], [f"t{k + 1}"], name=f"matmul_{k}")
            for k in range(depth)
        ]
        nodes.append(helper.make_node(op, [f"t{depth}"], ["y"], name="end"))
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["frames", WIDTH])] for name in ("x", "y")
        )
        initializers = [numpy_helper.from_array(weight, f"w{k}") for k, weight in enumerate(weights)]
        graph = helper.make_graph(nodes, "chain", inputs, outputs, initializers)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return save


@pytest.fixture(scope="session")
def noise():
    """Return a maker of samples of so many frames."""

    def make(frames, name="x"):
        values = np.random.default_rng(frames).standard_normal((frames, WIDTH)).astype(np.float32)
        return Sample(f"frames-{frames}", {name: values})

    return make


@pytest.fixture(scope="session")
def chains(tmp_path_factory, matmul_chain):
    """Return the path of a chain of five products and of one of ten."""
    folder = tmp_path_factory.mktemp("chains")
    return matmul_chain(folder / "five.onnx", 5), matmul_chain(folder / "ten.onnx", 10)


@pytest.fixture
def temporary_directory(tmp_path, monkeypatch):
    """Let this test have the directory for temporary files, and so the machine's lock, to itself."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Return address and configuration of a device that is this machine."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client and server")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(DAEMON.format(port=port, folder=folder))
    (folder / "ssh_config").write_text(CLIENT.format(folder=folder))
    key = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
    daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    until = time.monotonic() + WAIT_LIMIT_S
    while time.monotonic() < until and daemon.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    else:
        daemon.kill()
        pytest.skip(f"sshd does not start here: {daemon.communicate()[1].decode()[-300:]}")
    yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}", str(folder / "ssh_config")
    daemon.terminate()
    daemon.wait()
    daemon.stderr.close()


@pytest.fixture
def there(tmp_path):
    """Return where the device puts temporary files, and so its lock: it waits for no other benchmark of this machine."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def python_there(there):
    """Return the device's Python; it notes how it is started."""
    python = there / "python"
    python.write_text(f'#!/bin/sh\nexport TMPDIR={there}\necho "$@" >> {there}/started\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def on_device(device, python_there):
    """Return the overrides that time on the device."""
    return (f"benchmark.host={device[0]}", f"benchmark.ssh_config={device[1]}", f"benchmark.host_python={python_there}")


@pytest.fixture
def left(there):
    """Return a function that gives what benchmarks have left on the device."""

    def what():
        until = time.monotonic() + WAIT_LIMIT_S
        while (found := set(there.glob(f"{PREFIX}*"))) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    return what


@pytest.fixture
def cut():
    """Return a function that ends the connection of a process as a cable that is pulled: after some seconds, from outside."""

    def end(process, seconds, client="ssh", connections=1):
        seen, until = set(), time.monotonic() + 10 * WAIT_LIMIT_S
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found = [one for one in psutil.Process(process.pid).children(recursive=True) if one.name() == client]
                seen |= {one.pid for one in found}
                if len(seen) >= connections and found:
                    time.sleep(seconds)
                    for one in found:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            one.send_signal(signal.SIGKILL)
                    return
            time.sleep(0.01)

    return end
