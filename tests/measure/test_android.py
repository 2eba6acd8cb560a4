"""Timing on an Android device: by adb's own client, against a server on loopback that has this machine for a device."""

import shutil
import subprocess
import sys

import onnx
import pytest

from pipeline.errors import ConfigError
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.device_address import command_of
from pipeline.measure.device_place import DevicePlace
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.measure.remote_host import LostDeviceError, connected
from pipeline.sample import Sample
from tests.measure.fake_adb_server import Server

SERIAL = "adb-R58M12ABCDE-x1Y2z3._adb-tls-connect._tcp"  # of a phone on Wi-Fi: in capitals, too

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb")


@pytest.fixture
def phone(monkeypatch):
    """Return a server of adb with one device; adb's client asks it."""
    with Server(SERIAL) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        yield server
        server.shutdown()


@needs_adb
@pytest.mark.parametrize("host", [f"adb://{SERIAL}", "adb://"])
def test_a_phone_is_timed_on_as_a_device_over_ssh_is(phone, python_there, left, user_files, make_noise, host):
    model, sample = user_files / "model.onnx", Sample("a", {"x": make_noise(20, 0)})
    with connected(host, python_there) as remote:
        runtime = OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)
        found = benchmark_graph(model, model, [sample], min_pairs=4, min_seconds=0.05, rounds=2, runtime=runtime)
    assert found.pairs >= 4
    assert found.device.startswith(f"{host}: ")
    assert any(request.startswith("shell,v2") and "raw" in request.partition(":")[0] for request in phone.requests)
    assert left() == set()


@needs_adb
def test_a_phone_that_is_not_there_is_named(phone):
    with pytest.raises(ConfigError, match=r"no connection to adb://R5. It said: .*R5.* not found"):
        connected("adb://R5", sys.executable).__enter__()


@needs_adb
def test_a_phone_that_is_unplugged_fails_clearly_and_keeps_nothing(phone, python_there, left, chains, noise):
    with connected("adb://", python_there) as remote:
        place = DevicePlace(remote)
        place.kernel_times(onnx.load(chains[0]), noise(30), 1)
        remote._process.kill()
        with pytest.raises(LostDeviceError, match="the connection to adb:// broke; nothing was timed"):
            place.kernel_times(onnx.load(chains[1]), noise(30), 1)
    assert left() == set()


def test_a_machine_without_adb_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"adb, which connects to adb://R5, cannot be started here"):
        connected("adb://R5").__enter__()


@pytest.mark.parametrize(
    ("host", "python", "config", "said"),
    [
        ("adb://a b", "python3", None, "is not an address"),
        ("adb://$(id)", "python3", None, "is not an address"),
        ("adb://-e", "python3", None, "is not an address"),
        ("adb://R5;reboot", "python3", None, "is not an address"),
        ("adb://R5", "python3;reboot", None, "benchmark.host_python"),
        ("adb://R5", "python3", "config", "benchmark.ssh_config: adb://R5 is not reached by ssh"),
    ],
)
def test_nothing_that_the_shell_of_a_phone_could_read_is_taken(host, python, config, said):
    with pytest.raises(ConfigError, match=said):
        command_of(host, python, config, 1)


def test_the_words_for_a_shell_are_read_as_they_were_meant():
    *adb, there = command_of(f"adb://{SERIAL}", "/data/local/tmp/python", None, 7)
    assert adb == ["adb", "-s", SERIAL, "shell", "-T"]
    printed = there.replace("exec /data/local/tmp/python", "printf '%s\\n'")
    read = subprocess.run(["sh", "-c", printed], capture_output=True, text=True, check=True)
    assert read.stdout.splitlines()[0] == "-u"
    assert read.stdout.splitlines()[-2:] == ["7", "/data/local/tmp/python"]
