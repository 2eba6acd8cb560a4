"""The chain: load -> inspect -> quantize -> benchmark -> evaluate, its order and its promises.

A stage is a row of `STAGES`, what it needs and what it gives, and a module of its name, whose `run` takes the run so far and
returns that one value. The runner refuses a selection that lacks what a stage needs before anything runs, and writes
report.json after every stage, so that a run that is killed has said how far it came.
"""

import contextlib
import gc
import logging
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from pipeline.cache.current_cache import current, using
from pipeline.config.readers import calibrates
from pipeline.config.settings import RunConfig
from pipeline.errors import ConfigError, PipelineError, StageError
from pipeline.evaluate.evaluation import check_evaluation
from pipeline.graph.rehearsal import Rehearsals, rehearsals
from pipeline.interruption import boundary, interruption_in
from pipeline.limits import holding
from pipeline.outside_errors import lack_of_memory, made_of, told_of
from pipeline.own_time import own_time
from pipeline.record.environment import environment
from pipeline.record.report_end import mark_failed
from pipeline.record.run_directory import REPORT_FILE, RunDirectory
from pipeline.remote_files import copying
from pipeline.report.report_file import write_report
from pipeline.report.restored import Restored
from pipeline.report.schema import Report, StageRun
from pipeline.report.unfinished import forget_standing, keep_standing
from pipeline.report.writer import report_of, stages_of
from pipeline.stage_time import at_most
from pipeline.stages.context import RunContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: the word in `stages`, in the report and of the module.
        needs: fields of `RunContext` that must have been given.
        gives: the field that it fills.
    """

    name: str
    needs: tuple[str, ...]
    gives: str

    def run(self, context: RunContext) -> object:
        """Return what the stage gives. A stage that is not run is not imported, nor is what it computes with."""
        result: object = import_module(f"pipeline.stages.{self.name}").run(context)
        return result


STAGES = (
    Stage("load", (), "model"),
    Stage("inspect", ("model",), "inspection"),
    Stage("doctor", ("model", "inspection"), "diagnosis"),
    Stage("quantize", ("model",), "quantized"),
    Stage("benchmark", ("model", "quantized"), "benchmarks"),
    Stage("evaluate", ("model", "quantized"), "evaluation"),
    Stage("package", ("model", "quantized"), "package"),
)


def run_stages(
    config: RunConfig, directory: RunDirectory, warnings: Sequence[str] = (), restored: Restored | None = None
) -> Report:
    """Run the selected stages in their order and return the report; it is written after every stage.

    Args:
        config: the settings.
        directory: where the run writes to.
        warnings: what the settings alone give reason to warn of.
        restored: what the stages have given that were done when the run ended early; they are not run again.

    Raises:
        PipelineError: what a user can act on; the report then says `failed`, and nothing half-written is left.
        KeyboardInterrupt: the run was interrupted; the report says so, and holds what there is.
    """
    with holding(config.limits), using(config.cache), rehearsals() as others:  # starts a process, while the rest is made ready
        _let_end(others, directory)
        return _run(config, directory, warnings, restored, others)


def _let_end(others: Rehearsals, directory: RunDirectory, *message: str) -> None:
    """Let the other process end the report, with a message, where this one ends or fails without having done so."""
    others.on_death("pipeline.record.report_end", "end_report", str(directory.path.absolute() / REPORT_FILE), *message)


def _run(
    config: RunConfig, directory: RunDirectory, warnings: Sequence[str], restored: Restored | None, others: Rehearsals
) -> Report:
    context = RunContext(config, directory)
    done: list[StageRun] = []
    used = current().used
    if restored is not None:
        restored.put_into(context)
        used |= restored.report.cache or {}
        done += restored.stages
    for warning in (*warnings, *warnings_of(config)):
        context.run_log.warn(warning)
    surroundings = environment()

    def write(status: str, error: str | None = None) -> Report:
        report = report_of(
            status, model=config.model.name, mode=config.mode.name, stages=stages_of(config.stages, done, status),
            environment=surroundings, run_log=context.run_log, error=error, inspection=context.inspection,
            quantized=context.quantized, samples=context.split, benchmarks=context.benchmarks, evaluation=context.evaluation,
            diagnosis=context.diagnosis, package=context.package, cache=used if current().store is not None else None,
        )  # fmt: skip
        return write_report(directory, report)

    standing: Report | None = None  # as of the last stage that was done: what a run goes on from
    try:
        standing = write("running")
        forget_standing(directory)
        stages = selected_stages(config.stages)
        check_evaluation(config.model, config.evaluation)
        if "benchmark" in config.stages:
            _ = context.runtime  # one that is not to be had ends the run before anything is computed
        with context.progress, copying(context.progress.megabytes):
            for stage in stages:
                if stage.name not in {run.name for run in done}:
                    done.append(_run_stage(stage, context))
                elif getattr(context, stage.gives) is None:  # what is in memory only: the model
                    _run_stage(stage, context)
                standing = write("running")
    except BaseException as error:
        if (stopped := interruption_in(error)) is not None:
            directory.clear_staging()
            if standing is not None:
                keep_standing(directory, standing)
            write("interrupted")
            raise stopped from None
        told = _end_failed(error, context, done, write, standing, others)
        if told is None or told is error:
            raise
        log.debug("what the user is told of as %s", told, exc_info=True)
        raise told from error
    directory.clear_staging()
    return write("done")


def _end_failed(
    error: BaseException,
    context: RunContext,
    done: Sequence[StageRun],
    write: Callable[[str, str], Report],
    standing: Report | None,
    others: Rehearsals,
) -> PipelineError | None:
    """Let the report say that the run failed; return what the user is told, None where the error is a defect.

    Where memory is used up, what the stage held is let go first, and the other process knows what to write if this one cannot.
    """
    directory = context.directory
    if used_up := lack_of_memory(error) is not None:
        for one in made_of(error):
            traceback.clear_frames(one.__traceback__)
        gc.collect()
    failed = next((run.name for run in stages_of(context.config.stages, done, "failed") if run.status == "failed"), None)
    told = told_of(error, failed)
    message = str(told) if told is not None else f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError, MemoryError, ConfigError):
        if used_up:
            _let_end(others, directory, message)
        directory.clear_staging()
        if standing is not None:
            keep_standing(directory, standing)
    try:
        write("failed", message)
    except (OSError, MemoryError):
        with contextlib.suppress(MemoryError):
            mark_failed(directory.path, message)
    return told


def warnings_of(config: RunConfig) -> list[str]:
    """Return what the settings alone give reason to warn of: more threads than cores, one set for two purposes."""
    cores = os.cpu_count() or 1
    counts = {"runtime.threads": [config.runtime.threads], "benchmark.threads": config.benchmark.threads}
    found = [
        f"{key}: {count} threads on a machine of {cores} cores wait for each other, so that their times say nothing. Give at "
        f"most {cores}."
        for key, given in counts.items()
        for count in given
        if count > cores
    ]
    if calibrates(config) and config.calibration.path is not None and config.calibration.path == config.evaluation.path:
        found.append(
            "calibration.path and evaluation.path name the same set: ranges are measured on samples that the report is of, "
            "which flatters the model. Give others for one of them."
        )
    return found


def selected_stages(names: Sequence[str]) -> list[Stage]:
    """Return the stages of these names, in the table's order.

    Raises:
        StageError: a stage needs what no selected stage before it gives.
    """
    selected = [stage for stage in STAGES if stage.name in names]
    given: set[str] = set()
    for stage in selected:
        if missing := [need for need in stage.needs if need not in given]:
            giver = next(other.name for other in STAGES if other.gives == missing[0])
            raise StageError(f"stages: {stage.name} needs what {giver} gives; add {giver}: stages=[{giver},{stage.name}].")
        given.add(stage.gives)
    return selected


def _run_stage(stage: Stage, context: RunContext) -> StageRun:
    log.info("%s", stage.name)
    start = own_time()
    allowed = at_most(context.config.limits.stage_seconds, stage.name)
    with context.progress.bar(stage.name, None), allowed, boundary():  # until a part of the stage shows a bar of its own
        setattr(context, stage.gives, stage.run(context))
    seconds = own_time() - start
    assert getattr(context, stage.gives) is not None, f"{stage.name} promised {stage.gives} and gave nothing"
    log.info("%s took %.1f s", stage.name, seconds)
    return StageRun(stage.name, "done", round(seconds, 3))
