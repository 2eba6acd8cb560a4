"""A run and a sweep whose model, data and results are at s3:// URLs, against a server of S3 on this machine."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = os.environ.get("S3_PACKAGES", "")
"""A directory that `pip install --target` has filled: botocore wants an older python-dateutil than constraints.txt has."""
pytestmark = pytest.mark.skipif(
    any(not (PACKAGES and Path(PACKAGES, name).is_dir()) and find_spec(name) is None for name in ("s3fs", "moto", "flask")),
    reason="needs S3 and a server of it: see S3_PACKAGES in .ci/run",
)
FILL = """
import sys, fsspec
system = fsspec.filesystem("s3")
system.mkdir("bucket")
for line in sys.stdin.read().splitlines():
    local, _, there = line.partition("\\t")
    system.put_file(local, f"bucket/{there}")
"""
LIST = """
import fsspec
print("\\n".join(fsspec.filesystem("s3").find("bucket/runs")))
"""
URLS = (
    "model=vocoder", "model.path=s3://bucket/models/vocos.onnx",
    "calibration.path=s3://bucket/voice/calibration/manifest.jsonl",
    "evaluation.path=s3://bucket/voice/evaluation/manifest.jsonl", "results.url=s3://bucket/runs",
)  # fmt: skip
QUICK = (
    "stages=[load,quantize,evaluate]", "calibration.samples=2", "evaluation.samples=4", "evaluation.node_samples=0",
    "evaluation.listen=0",
)  # fmt: skip
SECRET = "not-to-be-shown"


def s3(code, where, given=""):
    """Run code in a process that reaches the server; it leaves no warnings of its libraries in this one."""
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, env=os.environ | where, text=True, capture_output=True, check=True
    )
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory, repo):
    """Return what names a server that holds a vocoder and its recordings; other names would reach no one."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    where = {"PYTHONPATH": os.pathsep.join(path for path in (os.environ.get("PYTHONPATH"), PACKAGES) if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=log,
        stderr=log,
        env=os.environ | where,
    )
    where |= {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        files = {"models/vocos.onnx": repo / "data/models/vocoder/vocos.onnx"}
        for part in ("calibration", "evaluation"):
            folder = repo / "data/voice" / part
            files |= {f"voice/{part}/{file.name}": file for file in sorted(folder.iterdir())[:6]}
            files[f"voice/{part}/manifest.jsonl"] = folder / "manifest.jsonl"
        s3(FILL, where, "\n".join(f"{local}\t{there}" for there, local in files.items()))
        yield where
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_a_run_reads_and_writes_at_urls_alone(server, run_quickly, repo):
    run = run_quickly(*URLS, *QUICK, "mode=static", **server).succeeded()
    named = {entry["path"] for entry in run.report["inputs"]}
    assert "s3://bucket/models/vocos.onnx" in named
    assert "s3://bucket/voice/calibration/manifest.jsonl" in named
    assert all(path.startswith("s3://bucket/") for path in named)
    assert run.report["model"] == "vocos"
    there = [name for name in s3(LIST, server) if run.directory.name in name]
    assert f"bucket/runs/vocos/static/{run.directory.name}/report.json" in there
    local = {file.relative_to(run.directory).as_posix() for file in run.directory.rglob("*") if file.is_file()}
    assert {name.split(run.directory.name + "/")[1] for name in there} == {
        name for name in local if not name.startswith(".hydra")
    }
    settings = (run.directory / "config.yaml").read_text(encoding="utf-8")
    assert "path: s3://bucket/models/vocos.onnx" in settings
    assert "results" not in settings  # a rerun of it sends nothing by itself
    for file in run.directory.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()

    folder = run.directory.parents[3]
    whole = run_quickly(f"verify={run.directory}", **server)
    assert "inputs: unchanged" in whole.stdout
    assert whole.exit_code == 0
    again = "import fsspec; fsspec.filesystem('s3').pipe('bucket/models/vocos.onnx', b'another')"
    s3(again, server)
    changed = run_quickly(f"verify={run.directory}", **server)
    assert changed.exit_code == 2
    assert "s3://bucket/models/vocos.onnx: other contents" in changed.stdout
    s3(FILL.replace('system.mkdir("bucket")', ""), server, f"{repo}/data/models/vocoder/vocos.onnx\tmodels/vocos.onnx")
    assert folder.is_dir()


def test_a_sweep_and_its_comparison_are_copied(server, run_quickly, tmp_path):
    sweep = run_quickly("-m", *URLS, *QUICK, "mode=dynamic,static", "hydra.sweep.dir=sweeps/mine", **server)
    assert sweep.exit_code == 0, sweep.stderr
    comparison = json.loads((tmp_path / "sweeps/mine/comparison.json").read_text(encoding="utf-8"))
    assert len(comparison) == 2
    there = s3(LIST, server)
    assert {"bucket/runs/sweeps/mine/comparison.html", "bucket/runs/sweeps/mine/comparison.json"} <= set(there)
    for mode, number in (("dynamic", 0), ("static", 1)):
        assert [name for name in there if f"/vocos/{mode}/" in name and name.endswith(f"_{number}/report.json")]


@pytest.mark.parametrize(
    ("overrides", "variables", "said"),
    [
        (("model.path=s3://bucket/none.onnx",), {}, "s3://bucket/none.onnx: there is nothing. Check the bucket"),
        (("model.path=s3://nowhere/none.onnx",), {}, "s3://nowhere/none.onnx: there is nothing"),
        (("model.path=s3://me:secret@bucket/x.onnx",), {}, "model.path: the URL holds a password"),
        (("cache.dir=s3://bucket/cache",), {}, "cache.dir: s3://bucket/cache is a URL; the cache is a directory"),
        (("results.url=runs",), {}, "results.url: 'runs' is no URL"),
        ((), {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://bucket/voice/calibration/manifest.jsonl: cannot be reached"),
    ],
)
def test_what_cannot_be_had_is_one_error(server, run_quickly, overrides, variables, said):
    run = run_quickly(*URLS, *QUICK, "mode=static", *overrides, **(server | variables))
    assert run.exit_code == 2
    assert said in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert "secret" not in run.stderr
