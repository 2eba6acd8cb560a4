"""A model's files come from a server once, complete and verified, whatever the connection does."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pipeline.data.download import download
from pipeline.errors import ConfigError, DataError
from pipeline.paths import cache_directory

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A server on loopback that can cut connections.

    Attributes:
        files: path -> (content, ETag).
        requests: (path, Range) of each request.
        cut_after: bytes after which each answer is cut off, one answer after the other; then answers are complete.
        ranges: whether it knows ranges.
    """

    def __init__(self):
        self.files = {"/model.onnx": (CONTENT, '"1"')}
        self.requests = []
        self.cut_after = []
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, handler):
        """Answer one request, as far as the connection is to last."""
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        if handler.path not in self.files:
            handler.send_error(404)
            return
        content, etag = self.files[handler.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if handler.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", etag)
        handler.end_headers()
        limit = self.cut_after.pop(0) if self.cut_after else len(content)
        handler.wfile.write(content[start : start + limit])
        handler.close_connection = True

    def close(self):
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    """Return a server with model.onnx."""
    running = Server()
    yield running
    running.close()


def get(server, cache, sha256=SHA256, name="model.onnx", progress=None):
    return download(
        f"{server.url}/{name}", sha256, cache, lambda *seen: progress.append(seen) if progress is not None else None
    )


def test_a_file_is_downloaded_once_and_then_comes_from_the_cache(server, tmp_path):
    progress = []
    first = get(server, tmp_path, progress=progress)
    assert first.file.read_bytes() == CONTENT
    assert (first.sha256, first.folder) == (SHA256, None)
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert get(server, tmp_path) == first
    assert len(server.requests) == 1


def test_a_connection_that_is_cut_in_the_middle_is_resumed_where_it_was(server, tmp_path):
    server.cut_after = [100_000, 50_000]
    assert get(server, tmp_path).file.read_bytes() == CONTENT
    assert server.requests == [("/model.onnx", None), ("/model.onnx", "bytes=100000-"), ("/model.onnx", "bytes=150000-")]


def test_a_run_that_gave_up_is_gone_on_with_by_the_next_one(server, tmp_path):
    server.cut_after = [100_000, *[0] * 5]
    with pytest.raises(DataError, match="5 times in a row, after 100000 bytes"):
        get(server, tmp_path)
    assert get(server, tmp_path).file.read_bytes() == CONTENT
    assert server.requests[-1] == ("/model.onnx", "bytes=100000-")


def test_a_file_that_has_changed_meanwhile_is_not_sewn_together_from_two(server, tmp_path):
    server.cut_after = [100_000, *[0] * 5]
    with pytest.raises(DataError):
        get(server, tmp_path)
    server.files["/model.onnx"] = (CONTENT[::-1], '"2"')
    assert get(server, tmp_path, sha256=None).file.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, tmp_path):
    server.ranges = False
    server.cut_after = [100_000]
    assert get(server, tmp_path).file.read_bytes() == CONTENT


def test_a_file_of_another_hash_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DataError, match=rf"model\.sha256: .*{SHA256}, expected {'0' * 64}"):
        get(server, tmp_path, sha256="0" * 64)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert get(server, tmp_path).sha256 == SHA256


def test_a_file_that_is_not_there_is_refused_at_once(server, tmp_path):
    with pytest.raises(DataError, match=r"model\.url: .*nothing\.onnx: the server answers 404"):
        get(server, tmp_path, name="nothing.onnx")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_refused(server, tmp_path):
    url = server.url
    server.close()
    with pytest.raises(DataError, match=r"model\.url: .*5 times in a row"):
        download(f"{url}/model.onnx", None, tmp_path, lambda *_: None)


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("file:///model.onnx", None, r"model\.url"),
        ("http://127.0.0.1/", None, r"model\.url"),
        ("http://127.0.0.1/m.onnx", "abc", r"model\.sha256"),
    ],
)
def test_an_address_or_a_hash_that_is_none_is_refused(tmp_path, url, sha256, message):
    with pytest.raises(ConfigError, match=message):
        download(url, sha256, tmp_path, lambda *_: None)


def packed(files, suffix=".tar.bz2"):
    stream = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:bz2") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".tar.bz2", ".zip"])
def test_an_archive_becomes_the_directory_that_is_in_it(server, tmp_path, suffix):
    server.files[f"/m{suffix}"] = (packed({"matcha/model.onnx": CONTENT, "matcha/tokens.txt": b"a 0\n"}, suffix), '"1"')
    found = get(server, tmp_path, None, f"m{suffix}")
    assert found.folder.name == "matcha"
    assert {file.name for file in found.folder.iterdir()} == {"model.onnx", "tokens.txt"}


def test_an_archive_that_would_write_elsewhere_is_refused_and_leaves_nothing(server, tmp_path):
    server.files["/m.tar.bz2"] = (packed({"../outside.txt": b"x"}), '"1"')
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="cannot be unpacked"):
        get(server, cache, None, "m.tar.bz2")
    assert not list(tmp_path.rglob("outside.txt"))


def test_an_archive_that_is_none_is_refused(server, tmp_path):
    server.files["/m.tar.bz2"] = (b"not an archive", '"1"')
    with pytest.raises(DataError, match="cannot be unpacked"):
        get(server, tmp_path, None, "m.tar.bz2")


def test_the_cache_is_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory().parent == tmp_path


def test_the_command_runs_a_model_from_a_server_and_records_its_hash(server, users_data, user_files, run_quickly, monkeypatch):
    model = (user_files / "model.onnx").read_bytes()
    server.files["/model.onnx"] = (model, '"1"')
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_files / "cache"))
    run = run_quickly(
        "model=onnx",
        f"model.url={server.url}/model.onnx",
        "model.path=null",
        "mode=static",
        "stages=[load,quantize]",
        *users_data,
    ).succeeded()
    assert hashlib.sha256(model).hexdigest() in {entry["sha256"] for entry in run.report["inputs"]}
    assert any("model.sha256" in warning for warning in run.report["warnings"])
