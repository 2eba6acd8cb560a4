"""A search over settings by Optuna: as many trials as were asked for, whatever happens, and the front of what they came to."""

import json
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.errors import ConfigError
from pipeline.hydra_hooks import register
from pipeline.record.search_record import Aim, SearchRecord, TrialRecord, read_search

optuna = pytest.importorskip("optuna", reason="needs the extra `search`: pip install -e '.[search]'")
register()
from hydra_plugins.speech_quantize_search import STUDY, SearchSweeper, _space  # noqa: E402

SEARCH = (
    "experiment=search", "mode=static", "mode.min_channels=1", "optimize_for=[quality,bytes]", "hydra.sweep.dir=sweep",
    "stages=[load,quantize,evaluate]", "evaluation.node_samples=0", "mode.nodes_to_exclude=[conv_a],['conv_*']",
    "hydra.sweeper.trials=4", "hydra.sweeper.seed=2",
)  # fmt: skip
KILLED = -9


@pytest.fixture
def search(user_files, run_in, users_model, users_data, killer):
    """Return a function that runs a search of four trials in the user's folder, some of which have nothing to quantize."""

    def run(*overrides, **variables):
        given = overrides if overrides[:1] == ("resume=sweep",) else (*SEARCH, *users_model, *users_data, *overrides)
        return run_in(user_files, *given, **variables, **({"PYTHONPATH": str(killer)} if variables else {}))

    return run


def test_a_search_that_is_killed_ends_with_the_trials_that_were_asked_for(search, user_files):
    sweep = user_files / "sweep"
    assert search(KILL_WHEN="sweep/jobs/1.json|directory").exit_code == KILLED
    before = {trial.number: trial.settings for trial in read_search(sweep).trials}
    assert len(before) == 1
    logs = {path: path.read_text(encoding="utf-8") for path in user_files.glob("outputs/model/static/*_0/run.log")}
    ended = search("resume=sweep")
    found = read_search(sweep)
    assert [trial.number for trial in found.trials] == list(range(4))
    failed = [trial for trial in found.trials if trial.settings["mode.nodes_to_exclude"] == "['conv_*']"]
    assert found.in_state("failed") == failed
    assert len(found.in_state("done")) == 4 - len(failed)
    assert 0 < len(failed) < 4
    assert all("would change nothing" in trial.error for trial in failed)
    assert all(found.trials[number].settings == settings for number, settings in before.items())
    assert logs == {path: path.read_text(encoding="utf-8") for path in logs}  # what had ended is not run again
    assert sorted(path.name for path in (sweep / "jobs").iterdir()) == [f"{number}.json" for number in range(4)]
    assert ended.exit_code == 2
    assert f"Front of the search: {4 - len(failed)} of 4 trials are done, {len(failed)} failed" in ended.stdout
    assert "Front of the search" in (sweep / "comparison.html").read_text(encoding="utf-8")

    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{sweep}/study.db")
    assert {trial.number for trial in study.best_trials} == {trial.number for trial in found.front}
    assert study.metric_names == ["quality", "bytes"]
    for trial in found.in_state("done"):
        report = json.loads((user_files / trial.directory / "report.json").read_text(encoding="utf-8"))
        quality, size = report["evaluation"]["metrics"]["sqnr_db"]["quantized"], report["artifacts"][0]["bytes"]
        assert trial.values == [-quality, size]  # more signal to noise is better: its sign is turned

    again = search("hydra.sweeper.trials=5", "hydra.sweeper.parallel=2")  # the same command, for more trials
    assert "of 5 trials are done" in again.stdout
    assert [trial.number for trial in read_search(sweep).trials] == list(range(5))
    refused = search("seed=1")
    assert refused.exit_code == 2
    assert "sweep holds a search with other settings" in refused.stderr
    (sweep / "study.db").write_text("no database, but long enough to be looked at as one", encoding="utf-8")
    damaged = search("resume=sweep")
    assert damaged.exit_code == 2
    assert "study.db cannot be read as a study of Optuna" in damaged.stderr
    assert "Traceback" not in damaged.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.sweeper.sampler=tpf", "no sampler 'tpf'. Did you mean tpe"),
        ("hydra.sweeper.trials=0", "hydra.sweeper.trials: 0 is not allowed"),
        ("optimize_for=[qualty]", "no metric 'qualty'. Did you mean quality"),
        ("optimize_for=[speedup]", "speedup comes from the stage benchmark"),
        ("mode.percentile=interval(3,2)", "mode.percentile"),
        ("resume_failed=true", "resume_failed: a search keeps failed trials"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_anything_is_run(search, user_files, override, said):
    refused = search(override)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.directories == ()


def space_of(*overrides):
    return _space(OverridesParser.create().parse_overrides(list(overrides)))


def test_values_are_chosen_from_what_hydra_calls_choices_ranges_and_intervals():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space, fixed = space_of(
        "a=1,b", "b=range(2,9,3)", "c=interval(0.5,2)", "d=tag(log,int(interval(1,9)))", "e=[1,2],[3]", "f=3", "g=1,2", "g=2",
        "resume=x", "hydra.run.dir=y",
    )  # fmt: skip
    assert space == {
        "a": CategoricalDistribution(["1", "b"]), "b": IntDistribution(2, 8, step=3), "c": FloatDistribution(0.5, 2.0),
        "d": IntDistribution(1, 9, log=True), "e": CategoricalDistribution(["[1,2]", "[3]"]),
    }  # fmt: skip
    assert fixed == ["f=3", "g=2"]  # of two values the last one counts


def test_a_search_over_nothing_is_refused():
    with pytest.raises(ConfigError, match="nothing to search over"):
        space_of("a=1")


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'speech-quantization-pipeline\[search\]'"):
        SearchSweeper(1, 1, "tpe", 0, {})._check()


def test_the_front_holds_what_nothing_dominates():
    values = {0: [1.0, 1.0], 1: [2.0, 2.0], 2: [2.0, 1.0], 3: [1.0, 1.0], 4: [0.5, 0.5], 5: None}
    trials = [TrialRecord(n, "failed" if v is None else "done", {}, None, v) for n, v in values.items()]
    record = SearchRecord(6, [Aim("loss", False), Aim("speedup", True)], trials)
    assert [trial.number for trial in record.front] == [0, 1, 3, 4]
