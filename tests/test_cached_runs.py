"""Runs that find in the cache what other runs have made: the same results, and nothing else is different."""

import hashlib
import json
import shutil

import pytest
import yaml

from pipeline.cache.cache_store import CacheStore
from pipeline.cache.entry_format import Entry, packed, unpacked
from pipeline.record.run_directory import RunDirectory
from pipeline.stages.kept_results import artifacts_of
from tests.conftest import write_user_files

STATIC = ("mode=static", "stages=[load,quantize,evaluate]", "evaluation.node_samples=1")
TIMED = ("benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2")
NOT_ALWAYS = {"inspections", "profiles", "samples", "outputs"}  # not kept where the machine was busy, or was as fast as reading


@pytest.fixture(scope="module")
def settings(users_model, users_data):
    return (*users_model, *users_data, *STATIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder that all of these runs begin in: files of another place are other files."""
    return write_user_files(tmp_path_factory.mktemp("cached"))


@pytest.fixture(scope="module")
def first(folder, run_in, settings):
    """Return a run that has filled a cache."""
    return run_in(folder, *settings, f"cache.dir={folder / 'cache'}").succeeded()


@pytest.fixture
def store(folder, first, tmp_path):
    """Return a cache of this test's own, as the first run has filled it."""
    del first
    shutil.copytree(folder / "cache", tmp_path / "cache")
    return CacheStore(tmp_path / "cache", 1 << 30)


@pytest.fixture
def run(folder, run_in, store):
    """Return a function that runs the command in the folder, with the cache of this test."""
    return lambda *overrides, **variables: run_in(folder, *overrides, f"cache.dir={store.directory}", **variables)


def told(run):
    """Return what the report says, without times and the cache itself."""
    report = run.succeeded().report
    for stage in report["stages"]:
        stage["seconds"] = None
    report.pop("cache", None)
    report.pop("try_next")  # its commands have the settings of the cache
    return report


def made(run):
    """Return the hashes of what a run leaves beside texts."""
    files = [path for path in run.directory.rglob("*") if path.suffix in (".onnx", ".wav")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kinds(run, what):
    return {kind for kind, use in run.report["cache"].items() if use[what]}


def test_with_and_without_the_cache_everything_is_the_same_bit_for_bit(folder, run_in, first, run, settings):
    without, second = run_in(folder, *settings), run(*settings)
    assert told(without) == told(first) == told(second)
    assert made(without) == made(first) == made(second) != {}
    assert "cache" not in without.report
    assert {"artifacts", "evaluations"} <= kinds(first, "made")
    assert {"artifacts", "evaluations"} <= kinds(second, "found")
    assert not kinds(second, "made") - NOT_ALWAYS
    assert "from the cache: " in second.stdout
    assert "From the cache" in (second.directory / "report.html").read_text(encoding="utf-8")


def test_speech_that_is_heard_comes_back_as_it_was(run):
    settings = ("model=vocoder", "mode=dynamic", "evaluation.samples=4", *STATIC[1:])
    first, second = run(*settings), run(*settings)
    assert told(first) == told(second)
    assert made(first) == made(second)
    assert any(name.endswith(".wav") for name in made(second))
    assert not kinds(second, "made") - NOT_ALWAYS


def test_what_measures_time_is_measured_again_unless_its_figures_are_asked_for(run, users_model, users_data):
    settings = (*users_model, *users_data, "mode=dynamic", "stages=[load,quantize,benchmark]", *TIMED)
    first, second, asked = run(*settings), run(*settings), run(*settings, "benchmark.reuse=true")
    assert "timings" in kinds(second, "made") <= {"timings", *NOT_ALWAYS}
    assert not kinds(asked, "made") - NOT_ALWAYS
    [was], [then], [now] = (run.report["benchmark"].values() for run in (first, second, asked))
    assert then["measured"] is None
    assert was != then == now | {"measured": None}
    assert now["measured"] in "".join(asked.report["notes"])
    trace = now["op_times"]["trace"]
    assert (asked.directory / trace).read_bytes() == (second.directory / trace).read_bytes()


def test_the_jobs_of_a_sweep_do_once_what_all_of_them_need(run, settings):
    sweep = run("-m", *settings, "mode.method=percentile,mse", "seed=1").succeeded()
    first, second = (json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in sweep.directories)
    assert first["artifacts"][0]["sha256"] != second["artifacts"][0]["sha256"]
    found = {kind for kind, use in second["cache"].items() if use["found"]}
    assert {"statistics", "prepared_graphs", "outputs", "checked_samples"} <= found
    made = {kind for kind, use in second["cache"].items() if use["made"]}
    assert {"artifacts", "evaluations"} <= made <= {"artifacts", "evaluations", *NOT_ALWAYS}


@pytest.mark.parametrize("change", ["calib", "seed=1"])
def test_other_data_and_settings_are_computed_anew(folder, run_in, run, settings, make_noise, write_arrays, change):
    path = folder / "calib.npz"
    was = path.read_bytes()
    if change == "calib":  # the same names, and other values
        write_arrays(path, {f"calib_{k}": {"x": 2 * make_noise(20 + k, 9 + k)} for k in range(4)})
        change = "seed=0"
    try:
        other = run(*settings, change)
        assert told(other) == told(run_in(folder, *settings, change))
    finally:
        path.write_bytes(was)
    assert {"artifacts", "evaluations"} <= kinds(other, "made")


def test_an_entry_that_is_damaged_is_told_and_made_anew(first, run, store, settings):
    for entry in store.entries():
        content = bytearray(entry.path.read_bytes())
        content[-1] ^= 1
        entry.path.write_bytes(content)
    second = run(*settings)
    assert "is damaged: what it held is made anew" in second.stderr
    assert told(first) == told(second)
    assert not kinds(second, "found") - NOT_ALWAYS


@pytest.mark.parametrize("path", ["../evil.onnx", "/tmp/evil.onnx", "sub/evil.onnx", "..", ""])
def test_an_entry_of_a_strangers_names_no_file_outside_of_the_run(store, tmp_path, path):
    [file] = [entry.path for entry in store.entries() if entry.kind == "artifacts"]
    held = unpacked(store.read("artifacts", file.stem))
    [graph] = held.facts["artifacts"]
    held.facts["artifacts"][graph]["path"] = path
    (tmp_path / "run").mkdir()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="does not lie in"):
        artifacts_of(Entry(held.facts, {path: next(iter(held.arrays.values()))}), RunDirectory(tmp_path / "run"))
    assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {".staging"}


def test_what_cannot_be_understood_is_told_and_made_anew(first, run, store, settings):
    for entry in store.entries():
        store.write(entry.kind, entry.path.stem, packed(Entry({"artifacts": [], "evaluation": 0})))
    second = run(*settings)
    assert "cannot be understood" in second.stderr
    assert "Traceback" not in second.stderr
    assert told(first) == told(second)


def test_a_cache_that_cannot_be_written_fails_no_run_and_is_told_once(folder, run_in, first, tmp_path, settings):
    (tmp_path / "file").write_bytes(b"")
    run = run_in(folder, *settings, f"cache.dir={tmp_path / 'file' / 'cache'}")
    assert run.stderr.count("Nothing more is cached in") == 1
    assert told(run) == told(first)


def test_a_run_that_is_repeated_is_made_again_and_a_strangers_settings_choose_no_cache(folder, run_in, first, tmp_path):
    past = shutil.copytree(first.directory, tmp_path / "past")
    config = yaml.safe_load((past / "config.yaml").read_text(encoding="utf-8"))
    config["cache"] = {"enabled": True, "dir": str(tmp_path / "elsewhere"), "max_mb": 1}
    (past / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    again = run_in(folder, f"rerun={past}").succeeded()
    assert "cache" not in again.report
    assert made(again) == made(first)
    assert all(again.report["rerun"]["artifacts_identical"].values())
    assert not (tmp_path / "elsewhere").exists()
    assert run_in(folder, f"verify={past}").exit_code == 0


def test_a_run_that_goes_on_uses_the_cache_of_the_command_and_none_that_it_names(folder, run_in, store, tmp_path, settings):
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "run"
    wrong = run_in(folder, *settings, f"cache.dir={elsewhere}", "limits.stage_seconds=0.0001", f"hydra.run.dir={place}")
    assert wrong.exit_code == 2
    longer = (place / "config.yaml").read_text(encoding="utf-8").replace("stage_seconds: 0.0001", "stage_seconds: 600")
    (place / "config.yaml").write_text(longer, encoding="utf-8")
    done = run_in(folder, f"resume={place}", SPEECH_QUANTIZE_CACHE=str(store.directory))
    assert done.exit_code == 0, done.stderr
    report = json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert report["cache"]["artifacts"] == {"found": 1, "made": 0}
    assert not list(elsewhere.rglob("*.entry"))


def test_the_command_shows_checks_and_clears_the_cache(run, store):
    entries = list(store.entries())
    assert f"together: {len(entries)} entries" in run("cache", "info").succeeded().stdout
    assert f"{len(entries)} of {len(entries)} entries" in run("cache", "verify").succeeded().stdout
    entries[0].path.write_bytes(b"")
    damaged = run("cache", "verify")
    assert damaged.exit_code == 2
    assert str(entries[0].path) in damaged.stdout
    assert f"removed from {store.directory}: {len(entries) - 1} entries" in run("cache", "clear").succeeded().stdout
    assert not list(store.entries())
    assert "together: 0 entries" in run("cache", "info").succeeded().stdout


@pytest.mark.parametrize("words", [("cache",), ("cache", "empty"), ("cache", "info", "here"), ("cache", "info", "cache.dir=")])
def test_what_the_command_does_not_know_is_told(run_quickly, words):
    run = run_quickly(*words)
    assert run.exit_code == 2
    assert "error: cache: " in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("setting", "told"),
    [("cache.max_mb=0", "cache.max_mb: 0 is out of limits"), ("cache.enabled=7", "cache.enabled: 7 is not allowed"),
     ("cache.dirs=a", "cache.dir"), ("cache.dir=''", "cache.dir: empty")],
)  # fmt: skip
def test_settings_of_the_cache_are_checked(user_files, run_quickly, settings, setting, told):
    run = run_quickly(*settings, setting)
    assert run.exit_code == 2
    assert told in run.stderr
