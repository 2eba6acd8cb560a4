"""`tracking=mlflow`: every number of the report, every setting and the page are there and equal, and what is not is listed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from pipeline.config.ranges import address_problem
from pipeline.tracking import LONGEST_NAME, SURROUNDINGS, Logged, _leaves, safe_name

os.environ |= SURROUNDINGS  # also of this process, which looks at what was logged
TRACKED = (
    "mode=dynamic", "benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2", "evaluation.path=eval.npz",
    "model.name='50 %, [a]'", "tracking=mlflow",
)  # fmt: skip
QUICK = ("mode=dynamic", "stages=[load,quantize,evaluate]", "evaluation.node_samples=0", "tracking=mlflow")
KILLED = -9
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")  # of MLflow's libraries


@pytest.fixture(scope="module")
def mlflow():
    """Return MLflow's client; the first thing that imports it, so that its telemetry is off."""
    return pytest.importorskip("mlflow.tracking", reason="needs the extra `tracking`: pip install -e '.[tracking]'")


def runs_in(mlflow, uri, experiment="speech-quantization"):
    """Return the client, and the runs of an experiment, the newest first."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return client, [] if found is None else client.search_runs([found.experiment_id])


def assert_all_there(client, run, folder, tmp_path):
    """Compare what MLflow gives back with the files of a run, number by number."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    listed = json.loads((folder / "tracking.json").read_text(encoding="utf-8"))
    originals = listed["names"]

    metrics = {originals.get(name, name): value for name, value in run.data.metrics.items()}
    own = dict(_leaves(report["evaluation"]["metrics"])) | {
        f"benchmark.{name}": value for name, value in _leaves(report.get("benchmark", {}))
    }
    numbers = {name: value for name, value in own.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    assert len(numbers) > 15
    assert {name: metrics.get(name) for name in numbers} == numbers
    for artifact in report["artifacts"]:
        assert metrics[f"artifacts.{artifact['graph']}.bytes"] == artifact["bytes"]
    for stage in report["stages"]:
        assert metrics[f"stages.{stage['name']}.seconds"] == stage["seconds"]
    undefined = {name for name, value in own.items() if value is None and name.rpartition(".")[2] in ("baseline", "delta")}
    assert "sqnr_db.baseline" in undefined
    assert undefined <= set(listed["not_held"])
    assert all(run.data.tags[name] == "infinite or undefined" for name in undefined)

    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    params = {originals.get(name, name): value for name, value in run.data.params.items()}
    given = {name: value for name, value in _leaves(settings) if not isinstance(value, bool) and value is not None}
    assert {name: params[name] for name in given} == {name: str(value) for name, value in given.items()}
    assert params["mode.per_channel"] == "true"
    assert params["rerun"] == "null"
    assert run.data.tags["directory"] == str(folder.absolute())
    assert run.info.status == "FINISHED"

    for name in ("report.html", "report.json", "config.yaml", report["artifacts"][0]["file"]):
        local = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert local.read_bytes() == (folder / name).read_bytes(), name


def test_a_local_database_gets_every_number_every_setting_and_the_page(mlflow, user_files, run_quickly, users_model, tmp_path):
    run = run_quickly(*users_model, *TRACKED).succeeded()
    client, [logged] = runs_in(mlflow, f"sqlite:///{user_files}/mlflow.db")
    (tmp_path / "back").mkdir()
    assert_all_there(client, logged, run.directory, tmp_path / "back")
    assert logged.data.tags["model"] == "50 %, [a]"
    assert "tracking" not in (run.directory / "config.yaml").read_text(encoding="utf-8")  # a rerun sends nothing by itself


def test_a_run_that_goes_on_is_logged_once_and_one_that_failed_as_failed(
    mlflow, user_files, run_in, users_model, users_data, killer
):
    uri = f"sqlite:///{user_files}/own.db"
    where = (f"tracking.uri={uri}", "tracking.experiment=mine", "tracking.models=false")
    killed = run_in(
        user_files,
        *users_model,
        *QUICK,
        *where,
        "hydra.run.dir=run",
        PYTHONPATH=str(killer),
        KILL_WHEN="run/run.log|- evaluate\n",
    )
    assert killed.exit_code == KILLED
    assert runs_in(mlflow, uri, "mine")[1] == []
    run_in(user_files, "resume=run", "tracking=mlflow", *where).succeeded()
    client, [logged] = runs_in(mlflow, uri, "mine")
    assert logged.info.status == "FINISHED"
    assert sorted(one.path for one in client.list_artifacts(logged.info.run_id)) == [
        "config.yaml", "report.html", "report.json", "run.log", "tracking.json",
    ]  # fmt: skip
    sweep = run_in(
        user_files, "-m", *users_model, *QUICK, *where, "mode.nodes_to_exclude=['conv_*'],[]", "hydra.sweep.dir=sweep"
    )
    assert sweep.exit_code == 2
    client, runs = runs_in(mlflow, uri, "mine")
    jobs = {run.data.tags["job"]: run for run in runs if "job" in run.data.tags}
    assert {number: run.info.status for number, run in jobs.items()} == {"0": "FAILED", "1": "FINISHED"}
    assert "would change nothing" in jobs["0"].data.tags["error"]
    assert jobs["1"].data.tags["sweep"] == str(user_files / "sweep")
    refused = run_in(user_files, "resume=sweep")  # the plan may be a stranger's, and would be sent all that is run
    assert refused.exit_code == 2
    assert "give that beside resume" in refused.stderr
    run_in(user_files, "resume=sweep", where[0])
    assert len(runs_in(mlflow, uri, "mine")[1]) == len(runs)


def test_with_the_server_down_the_run_finishes_and_says_so(mlflow, user_files, run_quickly, users_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    run = run_quickly(*users_model, *QUICK, f"tracking.uri=http://127.0.0.1:{port}", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert run.succeeded().report["status"] == "done"
    assert f"the run is complete, but could not be logged to http://127.0.0.1:{port}" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (run.directory / "tracking.json").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("tracking=mlflow", "tracking.uri=mlruns"), "tracking.uri: mlruns is a path"),
        (("tracking=mlflow", "tracking.uri=http://me:secret@host"), "Give it in MLFLOW_TRACKING_PASSWORD"),
        (("tracking=mlflow", "+tracking.url=x"), "tracking.url: no such setting. Did you mean uri"),
        (
            ("tracking.experiment=x",),
            "tracking.experiment: would have no effect: this run lacks what reads it, tracking=mlflow",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_run(mlflow, user_files, run_quickly, users_model, overrides, said):
    refused = run_quickly(*users_model, "mode=dynamic", *overrides)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "secret" not in refused.stderr + refused.stdout


def test_without_the_library_the_extra_is_named_before_the_run(user_files, run_quickly, users_model, monkeypatch):
    from pipeline.config import ranges
    from pipeline.config.settings import TrackingConfig, TrackingKind

    monkeypatch.setattr(ranges, "find_spec", lambda name: None)
    [told] = ranges.tracking_out_of_range(TrackingConfig(TrackingKind.mlflow))
    assert "pip install 'speech-quantization-pipeline[tracking]'" in told


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("mode.method", "mode.method"), ("a b/c:d-e_f", "a b/c:d-e_f"), ("模型", "模型"), ("100%", "100_"),
        ("a[0],b", "a_0__b"), ("../x", "___x"), ("/x", "_x"), ("a//b", "a__b"), ("", "_"),
        ("x" * 300, "x" * LONGEST_NAME),
    ],
)  # fmt: skip
def test_a_name_that_mlflow_refuses_gets_one_that_it_takes(mlflow, name, known):
    from mlflow.utils.validation import _validate_metric_name

    assert safe_name(name) == known
    _validate_metric_name(known)


def test_names_that_would_become_the_same_stay_apart_and_are_listed():
    found = Logged()
    for name in ("a_", "a%", "a,", "a%"):
        found.add_metric(name, 1.0)
    found.add_metric("inf", float("inf"))
    found.add_param("long", "v" * 9000)
    assert len(found.metrics) == 3
    assert {found.names.get(name, name) for name in found.metrics} == {"a_", "a%", "a,"}
    assert found.tags == {"inf": "infinite or undefined"}
    assert len(found.params["long"]) == 6000
    assert set(found.not_held) == {"inf", "long"}


def test_an_address_of_a_server_or_a_database_is_taken():
    for uri in ("http://host:5000", "https://host", "sqlite:////data/mlflow.db", "postgresql://me:pw@host/db", "databricks"):
        assert (address_problem(uri) is None) == (uri != "databricks")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start MLflow's own server on this machine, with a database; it needs more than the client does."""
    if missing := [name for name in ("flask", "pandas", "mlflow.server") if find_spec(name.partition(".")[0]) is None]:
        pytest.skip(f"needs MLflow's server, which the extra leaves out: pip install mlflow ({', '.join(missing)} missing)")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept"),
    ]  # fmt: skip
    with (folder / "log").open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream, start_new_session=True)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text(encoding="utf-8")[-2000:]
                time.sleep(0.5)
        yield address
    finally:
        import psutil

        family = psutil.Process(process.pid).children(recursive=True)
        for one in (process, *family):
            one.terminate()
        process.wait()


def test_a_real_server_gets_every_number_every_setting_and_the_page(
    mlflow, server, user_files, run_quickly, users_model, tmp_path
):
    run = run_quickly(*users_model, *TRACKED, f"tracking.uri={server}").succeeded()
    client, [logged] = runs_in(mlflow, server)
    (tmp_path / "back").mkdir()
    assert_all_there(client, logged, run.directory, tmp_path / "back")
