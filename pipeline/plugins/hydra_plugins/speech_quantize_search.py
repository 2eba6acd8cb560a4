"""`hydra/sweeper=search`: settings that Optuna chooses, by the results of those before them.

A trial is a job of the sweep, and has its number. What it came to is read from its run's directory, so that any launcher may
run it, and kept in `study.db` beside the sweep's plan: a search that was killed goes on with the trials that it was killed in.

Hydra imports this module at every start, Optuna is imported where a search begins.
"""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from pipeline.command_line.override_text import literal
from pipeline.config.sweepers import SearchConf
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.extras import how_to_install
from pipeline.lost_workers import PatientLauncher
from pipeline.record.run_directory import write_text
from pipeline.record.search_record import (
    DONE,
    FAILED,
    RUNNING,
    SEARCH_FILE,
    STUDY_FILE,
    Aim,
    SearchRecord,
    TrialRecord,
)
from pipeline.record.sweep_record import INTERRUPTED, jobs_of, note_job, read_plan, write_plan
from pipeline.report.objective import QUALITY, check_names, more_is_better, objective_names, objective_of
from pipeline.report.report_file import read_report
from pipeline.report.unfinished import has_failed_itself
from pipeline.typed_json import to_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger("pipeline.search")

STUDY = "search"  # its name in study.db
ASKED = "asked"  # the attribute of the study that says what is searched
SAMPLERS = ("tpe", "nsgaii", "random")
MOST_TRIALS = 100_000


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConf, provider="speech-quantize")


class SearchSweeper(Sweeper):
    """Asks Optuna for the settings of a job, lets the launcher run it, and tells Optuna what its run's directory holds."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: PatientLauncher  # type: ignore[assignment]

    def __init__(self, trials: int, parallel: int, sampler: str, seed: int, params: Mapping[str, Any]) -> None:
        """Take what `SearchConf` holds."""
        self.trials, self.parallel, self.sampler, self.seed = trials, parallel, sampler, seed
        self.params = {} if params is None else dict(params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has composed."""
        self.hydra_context, self.config = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = PatientLauncher(launcher, self.folder)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until as many have ended as were asked for.

        Raises:
            ConfigError: a setting of the search is wrong, Optuna is missing, or the directory holds another search.
        """
        self._check()
        self.names = objective_names(self.config.optimize_for) or [QUALITY]
        check_names(self.names, list(self.config.stages))
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        self.space, self.fixed = _space(OverridesParser.create(self.hydra_context.config_loader).parse_overrides(given))
        self.going_on = False
        study = self._study()
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        while batch := self._next(study):
            self._run(study, batch)

    def _check(self) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(f"hydra/sweeper=search: needs Optuna: {how_to_install('search')}") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"hydra.sweeper.sampler: no sampler {self.sampler!r}.{did_you_mean(self.sampler, SAMPLERS)}")
        for key in ("trials", "parallel"):
            if not 1 <= (value := getattr(self, key)) <= MOST_TRIALS:
                raise ConfigError(f"hydra.sweeper.{key}: {value} is not allowed; allowed: 1 to {MOST_TRIALS}.")
        if self.config.resume_failed:
            raise ConfigError(
                "resume_failed: a search keeps failed trials as failed, and goes on to others. Leave it out; for more trials, "
                f"give hydra.sweeper.trials={2 * self.trials}."
            )

    def _study(self) -> "Study":
        """Open the study of the sweep's directory, or begin it; a trial that was killed while it was chosen is given up.

        Raises:
            ConfigError: the directory holds the study of another search, or what is none.
        """
        import optuna
        from sqlalchemy import URL
        from sqlalchemy.exc import SQLAlchemyError

        place = self.folder / STUDY_FILE
        asked = {
            "aims": self.names,
            "values": {key: optuna.distributions.distribution_to_json(one) for key, one in self.space.items()},
            "settings": self.fixed,
        }
        address = str(URL.create("sqlite", database=str(place)))
        try:
            study = optuna.create_study(
                storage=address.replace("{", "{{").replace("}", "}}"),  # Optuna fills in {SCHEMA_VERSION}
                study_name=STUDY,
                directions=["maximize" if more_is_better(name) else "minimize" for name in self.names],
                load_if_exists=True,
            )
            self.going_on = bool(study.trials)
            found = study.user_attrs.get(ASKED)
            if found is None:
                study.set_user_attr(ASKED, asked)
        except SQLAlchemyError as error:
            raise ConfigError(f"search: {place} cannot be read as a study of Optuna: {str(error).splitlines()[0]}") from error
        if found not in (None, asked):
            others = [key for key in asked if not isinstance(found, dict) or found.get(key) != asked[key]]
            raise ConfigError(
                f"search: {self.folder} holds a search with other {' and '.join(others)}. Name another hydra.sweep.dir."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # setting names, which are only for plots, is called experimental
            study.set_metric_names(self.names)
        for trial in study.trials:
            if trial.state == optuna.trial.TrialState.RUNNING and not self._is_whole(trial):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study

    def _is_whole(self, trial: "FrozenTrial") -> bool:
        """Whether all settings of a trial were chosen, from the values that are searched over."""
        return set(trial.params) == set(self.space) and all(self.space[key] == one for key, one in trial.distributions.items())

    def _next(self, study: "Study") -> dict[int, list[str]]:
        """Return the jobs that are to run next: number -> settings; those first that have begun and not ended."""
        from optuna.trial import TrialState

        trials = [trial for trial in study.get_trials(deepcopy=False) if self._is_whole(trial)]
        running = {trial.number: trial.params for trial in trials if trial.state == TrialState.RUNNING}
        left = self.trials - len(trials)
        for _ in range(min(self.parallel - len(running), left)):
            study.sampler = self._sampler(len(study.get_trials(deepcopy=False)))
            trial = study.ask(self.space)
            running[trial.number] = trial.params
        chosen = sorted(running)[: self.parallel]
        chosen = [number for place, number in enumerate(chosen) if number == chosen[0] + place]  # as launchers count
        jobs = {number: [*self.fixed, *(f"{key}={running[number][key]}" for key in self.space)] for number in chosen}
        self._write_plan(jobs)
        return jobs

    def _sampler(self, number: int) -> Any:  # noqa: ANN401
        """Return what chooses the trial of a number: of one seed the same, whether the search was killed before it or not."""
        import numpy as np
        from optuna import samplers

        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.sampler == "nsgaii":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.RandomSampler(seed=seed) if self.sampler == "random" else samplers.TPESampler(seed=seed)

    def _write_plan(self, jobs: Mapping[int, list[str]]) -> None:
        """Add jobs to the plan, which says what a job that goes on must have been."""
        from pipeline.resume import own_overrides

        plan = read_plan(self.folder)
        planned = list(plan.jobs or [])
        for number, settings in jobs.items():
            planned += [[] for _ in range(number + 1 - len(planned))]
            planned[number] = own_overrides(settings)
        write_plan(self.folder, replace(plan, jobs=planned, trials=self.trials))

    def _run(self, study: "Study", batch: Mapping[int, list[str]]) -> None:
        """Run jobs, and tell the study of those that have ended."""
        again = [f"resume={literal(str(self.folder.absolute()))}", "hydra.output_subdir=null"] if self.going_on else []
        ended = False
        try:
            results = self.launcher.launch([[*settings, *again] for settings in batch.values()], initial_job_idx=min(batch))
            ended = True
        finally:
            if not ended:  # interrupted, or a worker was lost: those that have not ended go on when the search is resumed
                self._tell(study, batch, give_up=False)
        jobs = {job.number: job for job in jobs_of(self.folder)}
        for number, result in zip(batch, results, strict=True):
            try:
                _ = result.return_value
            except Exception as error:  # a defect, which one trial in a thousand may show
                log.exception("trial #%d", number)
                if number in jobs:
                    note_job(self.folder, number, jobs[number].directory, f"{type(error).__name__}: {error}")
        self._tell(study, batch, give_up=True)

    def _tell(self, study: "Study", numbers: Sequence[int] | Mapping[int, Any], *, give_up: bool) -> None:
        """Tell the study what jobs have come to, by their directories.

        Args:
            study: it knows them as running.
            numbers: of the jobs.
            give_up: whether a job that has not ended has failed.
        """
        from optuna.trial import TrialState

        jobs = {job.number: job for job in jobs_of(self.folder)}
        for number in numbers:
            job = jobs.get(number)
            values, failed = None, give_up
            if job is not None and job.error is None:
                try:
                    values = objective_of(read_report(job.directory, "search"), self.names)
                except PipelineError as error:
                    failed = True
                    log.warning("#%d: %s", number, error)
            elif job is not None:
                failed = failed or job.noted not in (None, INTERRUPTED) or has_failed_itself(job.directory)
            if values is not None:
                study.tell(number, values)
            elif failed:
                study.tell(number, state=TrialState.FAIL)
        self._write_record(study)

    def _write_record(self, study: "Study") -> None:
        """Write search.json."""
        from optuna.trial import TrialState

        states = {TrialState.COMPLETE: DONE, TrialState.FAIL: FAILED}
        jobs = {job.number: (str(job.directory), job.error) for job in jobs_of(self.folder)}
        trials = []
        for trial in study.get_trials(deepcopy=False):
            if self._is_whole(trial):
                directory, error = jobs.get(trial.number, (None, None))
                state = states.get(trial.state, RUNNING)
                trials.append(TrialRecord(trial.number, state, trial.params, directory, trial.values, error))
        record = SearchRecord(self.trials, [Aim(name, more_is_better(name)) for name in self.names], trials)
        write_text(self.folder / SEARCH_FILE, json.dumps(to_json(record), indent=2, ensure_ascii=False) + "\n")


def _space(overrides: Sequence[Override]) -> "tuple[dict[str, BaseDistribution], list[str]]":
    """Return what is searched over, setting -> its values, and the settings that have one value.

    Raises:
        ConfigError: nothing is searched over, or values are none that Optuna chooses from.
    """
    from pipeline.resume import own_overrides

    space: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(key, override)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    if not space:
        raise ConfigError(
            "hydra/sweeper=search: nothing to search over. Give several values, mode.method=minmax,mse or "
            "'mode.percentile=interval(99,100)', or hydra.sweeper.params in an experiment."
        )
    return space, own_overrides([*fixed.values()])


def _distribution(key: str, override: Override) -> "BaseDistribution":
    """Return what Optuna chooses a value from: a choice's texts, or numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    logarithmic = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=logarithmic)
            return FloatDistribution(float(low or 0.0), float(high or 0.0), log=logarithmic)
        if isinstance(value, RangeSweep) and not value.shuffle:
            numbers = list(value.range())
            if len(numbers) > 1 and all(isinstance(number, int) for number in numbers) and numbers[1] > numbers[0]:
                return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(numbers[1] - numbers[0]))
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise ConfigError(f"{key}: {override.input_line}: {error}") from error
