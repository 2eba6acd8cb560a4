"""Files at URLs: what is copied, when it is copied again, and what is said where it cannot be."""

import os
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.config.model_name import model_name
from pipeline.data.manifest import manifest_lines
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.limits import LimitsConfig, holding
from pipeline.paths import cache_directory, from_portable, portable, resolve_path, with_portable_paths
from pipeline.remote_files import ask_again
from pipeline.report.schema import InputFile
from pipeline.rerun import files_changed
from pipeline.results_copy import _copy, _send
from pipeline.urls import AbsentError, is_url, refuse_secrets

fsspec = pytest.importorskip("fsspec", reason="needs the extra `urls`: pip install -e '.[urls]'")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

lock = threading.Lock()


class Shelf(MemoryFileSystem):
    """A server of this process: shelf://<place>/<name>."""

    protocol = "shelf"
    store = {}  # noqa: RUF012  as the class that it is made of has it
    pseudo_dirs = [""]  # noqa: RUF012
    trouble = None
    before_get = None
    got: list = []  # noqa: RUF012
    put: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("shelf://").strip("/")

    def info(self, path, **kwargs):
        """Fail where that is asked for."""
        if Shelf.trouble is not None:
            raise Shelf.trouble
        return super().info(path, **kwargs)

    def find(self, path, **kwargs):
        """Return any names, also those that are no paths."""
        return sorted(name for name in self.store if name.startswith(f"{self._strip_protocol(path)}/"))

    def get_file(self, rpath, lpath, **kwargs):
        """Note what is asked for; threads that read one file at once would share its position in a file in memory."""
        Shelf.got.append(rpath)
        if Shelf.before_get is not None:
            Shelf.before_get(rpath)
        with lock:
            return super().get_file(rpath, lpath, **kwargs)

    def put_file(self, lpath, rpath, **kwargs):
        """Note what comes, and when."""
        Shelf.put.append(rpath)
        return super().put_file(lpath, rpath, **kwargs)


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    """Return an empty server, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    Shelf.store.clear()
    Shelf.pseudo_dirs[:] = [""]
    Shelf.trouble = Shelf.before_get = None
    Shelf.got, Shelf.put = [], []
    ask_again()
    yield fsspec.filesystem("shelf")
    ask_again()


def copies():
    return sorted(path.name for path in (cache_directory() / "copies").iterdir())


def test_a_file_is_copied_once_and_again_when_it_has_changed(shelf):
    shelf.pipe("/data/eval.npz", b"one")
    first = resolve_path("shelf://data/eval.npz")
    assert first.name == "eval.npz"
    assert first.read_bytes() == b"one"
    ask_again()
    assert resolve_path("shelf://data/eval.npz") == first
    assert Shelf.got == ["/data/eval.npz"]

    shelf.pipe("/data/eval.npz", b"two!")
    assert resolve_path("shelf://data/eval.npz") == first  # the same run goes on with what it has
    ask_again()
    assert resolve_path("shelf://data/eval.npz").read_bytes() == b"two!"
    assert first.read_bytes() == b"one"  # another run may be reading it


def test_settings_and_reports_keep_the_url(shelf):
    shelf.pipe("/data/eval.npz", b"one")
    copy = resolve_path("shelf://data/eval.npz")
    assert portable(copy) == "shelf://data/eval.npz"
    assert from_portable("shelf://data/eval.npz") == copy
    kept = with_portable_paths({"evaluation": {"path": "shelf://data/eval.npz", "samples": 3}})
    assert kept == {"evaluation": {"path": "shelf://data/eval.npz", "samples": 3}}
    assert model_name("onnx", "shelf://bucket/voices/amy.onnx") == "amy"
    assert model_name("onnx", None, "shelf://bucket/voices/amy/") == "amy"
    assert not is_url(r"C:\models\amy.onnx")


def test_what_changed_at_a_url_is_told(shelf):
    shelf.pipe("/data/a.npz", b"one")
    shelf.pipe("/data/b.npz", b"one")
    shelf.pipe("/data/c.npz", b"one")
    hash_of_one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    inputs = [InputFile(f"shelf://data/{name}.npz", hash_of_one, 3) for name in "abc"]
    assert files_changed(inputs) == []
    ask_again()
    shelf.pipe("/data/b.npz", b"two")
    shelf.rm("/data/c.npz")
    assert files_changed(inputs) == ["shelf://data/b.npz: other contents", "shelf://data/c.npz: is gone"]


def test_a_model_brings_its_weights_and_its_tables(shelf, tmp_path, conv_net):
    onnx.save_model(conv_net(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    for name, target in (("net.onnx", "m/net.onnx"), ("net.data", "m/net.data")):
        shelf.pipe(f"/{target}", (tmp_path / name).read_bytes())
    shelf.pipe("/m/tokens.txt", b"<blk> 0\n")
    shelf.pipe("/m/other.bin", b"not asked for")
    model = resolve_path("shelf://m/net.onnx")
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.data", "net.onnx", "tokens.txt"]
    loaded, original = onnx.load(model), conv_net()
    for mine, theirs in zip(loaded.graph.initializer, original.graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(mine), onnx.numpy_helper.to_array(theirs))
    assert portable(model.parent / "tokens.txt") == "shelf://m/tokens.txt"

    ask_again()
    shelf.rm("/m/net.data")
    with pytest.raises(DataError, match=r"shelf://m/net\.onnx: its weights in 'net\.data' are not beside it"):
        resolve_path("shelf://m/net.onnx")


def test_weights_that_lead_out_of_the_folder_are_not_asked_for(shelf, tmp_path, conv_net):
    model = conv_net()
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    evil = (tmp_path / "net.onnx").read_bytes().replace(b"net.data", b"../x.bin")
    shelf.pipe("/secret/x.bin", b"not the model's")
    shelf.pipe("/secret/m/net.onnx", evil)
    resolve_path("shelf://secret/m/net.onnx")  # loading it refuses the name
    assert Shelf.got == ["/secret/m/net.onnx"]


def test_a_model_beyond_the_limit_is_refused_before_it_is_copied(shelf):
    shelf.pipe("/m/net.onnx", bytes(2_000_001))
    with (
        holding(LimitsConfig(model_mb=2)),
        pytest.raises(ModelError, match=r"limits\.model_mb: 2, but shelf://m/net\.onnx has 3"),
    ):
        resolve_path("shelf://m/net.onnx")
    assert Shelf.got == []


def test_a_manifest_brings_the_recordings_that_are_asked_for(shelf):
    lines = [f'{{"id": "{name}", "audio": "wav/{name}.wav"}}' for name in "abc"]
    shelf.pipe("/set/manifest.jsonl", "\n".join(lines).encode())
    for name in "ab":
        shelf.pipe(f"/set/wav/{name}.wav", name.encode())
    read = manifest_lines(resolve_path("shelf://set/manifest.jsonl"), "calibration.path")
    first = next(read)
    assert first.audio.read_bytes() == b"a"
    assert portable(first.audio) == "shelf://set/wav/a.wav"
    assert Shelf.got == ["/set/manifest.jsonl", "/set/wav/a.wav"]
    _, absent = read
    assert not absent.audio.exists()  # who reads it says so, as of a local one
    assert portable(absent.audio) == "shelf://set/wav/c.wav"


def test_a_folder_is_copied_whole(shelf):
    shelf.pipe("/calls/de/a.wav", b"a")
    shelf.pipe("/calls/de/sub/b.wav", b"b")
    folder = resolve_path("shelf://calls/de")
    assert folder.name == "de"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.wav")} == {"a.wav", "sub/b.wav"}
    assert portable(folder / "sub" / "b.wav") == "shelf://calls/de/sub/b.wav"
    shelf.pipe("/calls/de/c.wav", b"c")
    ask_again()
    assert (resolve_path("shelf://calls/de/") / "c.wav").read_bytes() == b"c"
    assert Shelf.got.count("/calls/de/a.wav") == 1  # what is the same is not sent again


@pytest.mark.parametrize("name", ["../out.wav", "sub/../../out.wav", "//etc/out.wav", r"..\out.wav", "C:/out.wav"])
def test_no_name_leads_out_of_its_place(shelf, tmp_path, name):
    shelf.pipe("/set/in/a.wav", b"a")
    shelf.store[f"/set/in/{name}"] = shelf.store["/set/in/a.wav"]
    with pytest.raises(DataError, match=r"leads out of it\. Nothing of it is copied"):
        resolve_path("shelf://set/in")
    shelf.store.pop(f"/set/in/{name}")
    shelf.pipe("/set/m.jsonl", ('{"id": "a", "audio": "' + name.replace("\\", "\\\\") + '"}').encode())
    with pytest.raises(DataError, match="leads out of it"):
        list(manifest_lines(resolve_path("shelf://set/m.jsonl"), "calibration.path"))
    assert Shelf.got == ["/set/m.jsonl"]
    assert not list(tmp_path.rglob("out.wav"))


def test_a_name_that_is_a_file_and_a_folder_is_refused(shelf):
    shelf.pipe("/set/in/a/b.wav", b"b")
    shelf.store["/set/in/a"] = shelf.store["/set/in/a/b.wav"]
    with pytest.raises(DataError, match="holds 'a' as a file and as a folder"):
        resolve_path("shelf://set/in")


def test_jobs_that_copy_at_once_get_the_same_whole_file(shelf):
    shelf.pipe("/m/x.npz", os.urandom(100_000))
    together, found = threading.Barrier(4, timeout=60), []
    Shelf.before_get = lambda _: together.wait()
    jobs = [threading.Thread(target=lambda: found.append(resolve_path("shelf://m/x.npz"))) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(Shelf.got) == 4
    assert len(found) == 4
    assert len(set(found)) == 1
    assert found[0].read_bytes() == shelf.cat("/m/x.npz")
    assert len(copies()) == 1


def test_a_file_that_changes_while_it_is_copied_is_copied_again(shelf):
    shelf.pipe("/m/x.npz", b"before")

    def change(_):
        Shelf.before_get = None
        shelf.pipe("/m/x.npz", b"later!")

    Shelf.before_get = change
    assert resolve_path("shelf://m/x.npz").read_bytes() == b"later!"
    assert len(Shelf.got) == 2
    assert len(copies()) == 1


def test_a_copy_that_breaks_off_leaves_nothing(shelf):
    shelf.pipe("/m/x.npz", b"x")

    def fail(_):
        raise ConnectionResetError("reset by peer")

    Shelf.before_get = fail
    with pytest.raises(DataError, match=r"shelf://m/x\.npz: cannot be reached: reset by peer\. Is the server up"):
        resolve_path("shelf://m/x.npz")
    assert copies() == []
    Shelf.before_get = None
    with pytest.raises(DataError):  # a run does not wait for a server again and again
        resolve_path("shelf://m/x.npz")
    ask_again()
    assert resolve_path("shelf://m/x.npz").read_bytes() == b"x"


class NoCredentialsError(Exception):
    """Of botocore, by its name."""


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        (FileNotFoundError("x"), AbsentError, r"shelf://b/x\.npz: there is nothing. Check the bucket, or host"),
        (PermissionError("Forbidden"), DataError, r"the server refuses \(Forbidden\). Credentials belong in the environment"),
        (NoCredentialsError("Unable to locate credentials"), DataError, "the server refuses"),
        (TimeoutError("timed out"), DataError, "cannot be reached: timed out. Is the server up"),
        (OSError("http://me:secret@host/x failed"), DataError, "http://host/x failed"),
    ],
)
def test_what_a_server_refuses_is_one_error(shelf, trouble, kind, said):
    Shelf.trouble = trouble
    with pytest.raises(kind, match=said) as told:
        resolve_path("shelf://b/x.npz")
    assert "secret" not in str(told.value)


def test_a_server_that_is_down_is_not_taken_for_an_absent_file(shelf):
    absent = FileNotFoundError("http://host/x")
    absent.__cause__ = ConnectionRefusedError("Cannot connect to host")  # as the http of fsspec has it
    Shelf.trouble = absent
    with pytest.raises(DataError, match="cannot be reached: Cannot connect to host"):
        resolve_path("shelf://b/x.npz")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://a/b.npz", "seen by one process alone"),
        ("s3://me:secret@bucket/x.npz", "Credentials belong in the environment"),
        ("https://host/x.npz?token=secret", "behind which signatures and tokens stand"),
        ("zip://x::s3://bucket/x.zip", "URLs in URLs"),
        ("shelf://a/../b", "name the place itself"),
        ("nosuch://a/b", "fsspec knows no file system nosuch://"),
    ],
)
def test_a_url_that_cannot_be_opened_says_why(url, said):
    with pytest.raises(ConfigError, match=said) as told:
        resolve_path(url)
    assert "secret" not in str(told.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match="s3:// needs a package that is not installed: Install s3fs to access S3"):
        resolve_path("s3://bucket/x.npz")
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"URLs need fsspec: pip install 'speech-quantization-pipeline\[urls\]'"):
        resolve_path("s3://bucket/y.npz")


def test_a_file_url_is_the_file_itself(tmp_path):
    assert resolve_path((tmp_path / "a b.npz").as_uri()) == tmp_path / "a b.npz"


def test_a_password_on_the_command_line_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match=r"results\.url: the URL holds a password") as told:
        refuse_secrets(["model=vocoder", "results.url=s3://me:secret@bucket/runs"])
    assert "secret" not in str(told.value)
    refuse_secrets(["model.path=sftp://me@host/x.onnx", "tracking.uri=postgresql://me:secret@host/db"])


def run_folder(tmp_path, name="2026-01-01_00-00-00"):
    folder = tmp_path / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / "samples").mkdir()
    for file in ("report.json", "config.yaml", "zzz.onnx", "samples/a.wav", ".hydra/config.yaml", ".unfinished.json"):
        (folder / file).write_text(file, encoding="utf-8")
    (folder / "link").symlink_to("/etc/hostname")
    return folder


def test_a_runs_directory_is_copied_with_its_report_last(shelf, tmp_path):
    folder = run_folder(tmp_path)
    place = _send(folder, "shelf://runs/vocoder/static/2026-01-01_00-00-00", "report.json")
    assert place == "shelf://runs/vocoder/static/2026-01-01_00-00-00"
    root = "/runs/vocoder/static/2026-01-01_00-00-00"
    assert sorted(name.removeprefix(f"{root}/") for name in shelf.store) == [
        ".unfinished.json", "config.yaml", "report.json", "results.json", "samples/a.wav", "zzz.onnx",
    ]  # fmt: skip
    assert Shelf.put[-1] == f"{root}/report.json"
    assert shelf.cat(f"{root}/samples/a.wav") == b"samples/a.wav"


def test_a_run_that_went_on_replaces_its_copy_and_another_ones_is_left_alone(shelf, tmp_path):
    place, folder = "shelf://runs/m/static/2026-01-01_00-00-00", run_folder(tmp_path / "here")
    assert _send(folder, place, "report.json") == place
    (folder / "report.json").write_text("done", encoding="utf-8")
    assert _send(folder, place, "report.json") == place
    assert shelf.cat("/runs/m/static/2026-01-01_00-00-00/report.json") == b"done"
    elsewhere = run_folder(tmp_path / "there")  # of another machine, in the same second
    assert _send(elsewhere, place, "report.json") == f"{place}-2"
    assert shelf.cat("/runs/m/static/2026-01-01_00-00-00/report.json") == b"done"


def test_with_the_server_down_everything_is_kept_and_that_is_said(shelf, tmp_path, caplog, monkeypatch):
    folder = run_folder(tmp_path)
    monkeypatch.setattr(Shelf, "exists", lambda *_: (_ for _ in ()).throw(ConnectionRefusedError("refused")))
    _copy(folder, "shelf://runs/m/static/x", "report.json")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"everything is in {folder}, but could not be copied to shelf://runs/m/static/x" in record.getMessage()
    assert Path(folder / "report.json").read_text(encoding="utf-8") == "report.json"
