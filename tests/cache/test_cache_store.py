"""The files of a cache: whole or not there, checked, bounded, and never a reason for a run to fail."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.cache import cache_store
from pipeline.cache.cache_store import CacheStore
from pipeline.cache.current_cache import CacheConfig, store_of

KEYS = [f"{number:064x}" for number in range(20)]


@pytest.fixture
def store(tmp_path):
    return CacheStore(tmp_path / "cache", 1_000_000)


def files_in(store):
    return [path for path in store.directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "longer"])
def test_what_is_not_what_was_written_is_said_and_removed(store, caplog, damage):
    store.write("things", KEYS[0], b"what was made")
    [file] = files_in(store)
    content = file.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes({"cut": content[:-3], "flip": changed, "empty": b"", "longer": content + b"x"}[damage])
    assert [entry.path for entry in store.damaged()] == [file]
    assert store.read("things", KEYS[0]) is None
    assert "is damaged" in caplog.text
    assert not files_in(store)


def test_what_was_not_used_for_longest_goes_when_the_cache_is_full(tmp_path):
    store = CacheStore(tmp_path, 10_000)
    for number, key in enumerate(KEYS[:9]):
        store.write("things", key, bytes(1000))
        os.utime(tmp_path / "things" / f"{key}.entry", (number, number))
    assert store.read("things", KEYS[0]) is not None  # used now
    store.write("things", KEYS[9], bytes(1000))
    store.close()
    left = {entry.path.name[:64] for entry in store.entries()}
    assert sum(entry.bytes for entry in store.entries()) <= 10_000
    assert KEYS[0] in left
    assert KEYS[9] in left
    assert KEYS[1] not in left


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path):
    store = CacheStore(tmp_path, 10_000)
    store.write("things", KEYS[0], bytes(20_000))
    assert not files_in(store)


def test_a_file_of_a_killed_process_is_no_entry_and_goes_after_an_hour(store):
    store.write("things", KEYS[0], b"whole")
    for name, age in (("new", 0), ("old", 2 * cache_store.GIVEN_UP_S)):
        file = store.directory / "things" / f"{cache_store.UNFINISHED}{name}"
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age, time.time() - age))
    store.shrink()
    assert sorted(path.name for path in files_in(store)) == [f"{cache_store.UNFINISHED}new", f"{KEYS[0]}.entry"]


def test_what_cannot_be_read_is_said_once_and_is_not_there(store, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert store.read("things", KEYS[0]) is store.read("things", KEYS[1]) is None
    assert caplog.text.count("Permission denied") == 1


def test_other_files_in_its_place_are_not_touched(store):
    store.write("things", KEYS[0], b"mine")
    (store.directory / "things" / "letter.txt").write_text("dear", encoding="utf-8")
    (store.directory / "note.txt").write_text("dear", encoding="utf-8")
    assert store.clear() == 0
    assert sorted(path.name for path in files_in(store)) == ["letter.txt", "note.txt"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_said_once_and_stops_nothing(store, monkeypatch, caplog, error):
    store.write("things", KEYS[0], b"before")

    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(cache_store, "_write", refuse)
        patched.setattr(cache_store.os, "utime", refuse)
        for key in KEYS[1:4]:
            store.write("things", key, b"lost")
        assert bytes(store.read("things", KEYS[0])) == b"before"
    assert caplog.text.count(os.strerror(error)) == 1
    assert len(files_in(store)) == 1


def test_a_write_that_fails_half_way_leaves_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store.write("things", KEYS[0], b"lost")
    assert not files_in(store)


def test_the_last_of_the_disk_is_left_to_the_runs(store, monkeypatch, caplog):
    monkeypatch.setattr(cache_store, "KEPT_FREE", 1 << 60)
    store.write("things", KEYS[0], b"too much")
    assert not files_in(store)
    assert "nearly full" in caplog.text


def test_a_place_that_cannot_be_one_is_no_cache(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = CacheStore(tmp_path / "file" / "cache", 1000)
    store.write("things", KEYS[0], b"lost")
    assert store.read("things", KEYS[0]) is None
    assert list(store.entries()) == []


def write_and_read(directory: Path, content: bytes, seconds: float) -> int:
    """Write the same entry again and again while others write and read it; return how many reads found it missing or mixed."""
    store, wrong, until = CacheStore(directory, 10_000_000), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        store.write("things", KEYS[0], content)
        found = store.read("things", KEYS[0])
        wrong += found is None or len(set(bytes(found))) != 1
    return wrong


def test_processes_that_write_one_entry_never_read_half_of_it(tmp_path):
    contents = [bytes([number]) * 300_000 for number in (1, 2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(write_and_read, [(tmp_path, content, 0.5) for content in contents]) == [0, 0]
    assert len(list((tmp_path / "things").iterdir())) == 1


def test_a_process_that_is_killed_while_it_writes_leaves_the_entry_whole(tmp_path):
    store = CacheStore(tmp_path, 10_000_000)
    store.write("things", KEYS[0], bytes(300_000))
    writer = multiprocessing.get_context("spawn").Process(target=write_and_read, args=(tmp_path, bytes([1]) * 300_000, 60))
    writer.start()
    while set(bytes(store.read("things", KEYS[0]))) == {0}:
        time.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert set(bytes(store.read("things", KEYS[0]))) == {1}
    assert not list(store.damaged())


def test_its_place_is_the_setting_or_the_variable_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPEECH_QUANTIZE_CACHE")
    assert store_of(CacheConfig()).directory.is_relative_to(tmp_path / "home")
    monkeypatch.setenv("SPEECH_QUANTIZE_CACHE", str(tmp_path / "shared"))
    assert store_of(CacheConfig()).directory == tmp_path / "shared"
    assert store_of(CacheConfig(dir=str(tmp_path / "own"))).directory == tmp_path / "own"
    monkeypatch.setenv("SPEECH_QUANTIZE_CACHE", "off")
    assert store_of(CacheConfig()) is None
    assert store_of(CacheConfig(dir=str(tmp_path / "own"), enabled=False)) is None
