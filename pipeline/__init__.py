"""Quantize ONNX speech models, and measure what that costs.

    interruption.py     Ctrl-C and SIGTERM: what a run has so far is kept
    blas_threads.py     on how many threads numpy computes
    garbage.py          when Python collects reference cycles
    errors.py           errors that a user can act on
    own_time.py         a clock that stands still while another process is waited for
    run_ahead.py        results in order, computed ahead where cores are idle
    stage_time.py       the time that a stage may take
    extras.py           libraries that are installed on request
    limits.py           what a run may take
    urls.py             URLs in the place of paths, which fsspec opens
    operator_count.py   how many operators a file has, before a library reads it
    remote_files.py     copies of what is at them
    paths.py            files that settings name: where they are, their hash
    processor.py        the processor of this machine
    memory.py           its memory
    outside_errors.py   those of them that come from around the program: a full disk, memory that is used up
    shell_words.py      commands as they are pasted into a shell
    sample.py           one sample: the arrays that one call of a graph takes
    utterance.py        one utterance of a data set: text, token ids, recording
    typed_json.py       dataclasses <-> JSON
    cache/              what runs have made and others need again
    evaluation_kind.py  what quality means for a model
    graph/              ONNX graphs: loading, sessions, names, shapes, parts of a graph, edits
    audio/              signal processing that models, data and metrics share
    models/             one adapter per kind of model
    config/             every setting; from Hydra's composition to typed settings, checked once
    record/             what a run leaves: its directory, what it read and warned of, its environment; the terminal
    data/               calibration and evaluation sets; manifests, recordings, arrays, downloads
    metrics/            tensor, audio and text metrics, each a plain function
    calibration/        the range engine: streaming statistics and the ranges that follow from them
    quantize/           quantization modes: plan, integer types, Q/DQ pairs, artifacts
    ptq/                algorithms after training: SmoothQuant, GPTQ, bias correction, equalization, reconstruction
    measure/            paired timing, memory, profiles
    optimize/           rewrites of float graphs and layouts of integer ones, each kept where it is faster
    evaluate/           fp32 and quantized on the same inputs; the loss of a changed graph
    mixed_precision/    mode=auto: the precision of each node by sensitivity, gain and a greedy knapsack
    package/            the directory that goes to a device, tried in the client
    stages/             load, inspect, quantize, benchmark, evaluate, package: one file each
    report/             report.json, the terminal, report.html, comparisons of runs
    runner.py           the chain of stages, its order and its promises
    interrupted_run.py  what an interrupted run leaves
    tracking.py         a run is logged to MLflow as well
    results_copy.py     a run's directory, and a sweep's, are copied to a URL
    rerun.py            what differs when a past run is run again
    verify.py           what has changed since a run
    try_models.py       the models of a past run speak and listen
    serve/              the runs of a directory in a browser, and a page to compare by ear
    past_runs.py        what looks at past runs and runs nothing
    resume.py           a run that ended early, to its end
    lost_workers.py     a launcher whose workers may be killed: what they leave is run again
    hydra_hooks.py      what Hydra calls: a run's folder, the claim on its directory, the table after a sweep
    command_line/       from what the shell hands over to what Hydra takes: quotes, short forms, corrections, completion
    plugins/            what Hydra finds by itself: the search over settings
    cli.py              the command: run.py, and speech-quantize where the package is installed
    in_process.py       a run from Python: pipeline.run
    __main__.py         the entry of the command, before anything large is imported

Data flows one way: load -> inspect -> quantize -> benchmark -> evaluate -> report. Imports do too: a package of this list
imports only from those above it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.report.schema import Report

__all__ = ["run"]

# ONNX Runtime looks at this when it is imported, and then writes a device's id and a queue of events into the user's cache, to
# be sent. Here, because every process of ours imports this package first; child processes inherit it. See docs/security.md.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # these send what they are used for, where they are used
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def run(overrides: Sequence[str] = ()) -> "Report":
    """Run the pipeline as `python run.py <overrides>` does, in this process, and return the report.

        import pipeline
        report = pipeline.run(["model=vocoder", "mode=dynamic", "evaluation.samples=4"])
        report.benchmark["vocoder"].speedup.median

    The run's directory, `outputs/<model>/<mode>/<timestamp>/`, is made in the working directory, with the files that the
    command leaves there, and `outputs/index.html` is made again. Nothing is printed but progress bars, on a terminal. Hydra's
    global state is left as it was.

    Args:
        overrides: settings as on the command line: `group=option`, `key=value`. One run: no lists of values to sweep over.

    Returns:
        What report.json holds, as `pipeline.report.schema.Report`.

    Raises:
        PipelineError: what a user can act on: a setting, a file, a sample. The report then says `failed`.
    """
    from pipeline.in_process import run as run_in_process

    return run_in_process(overrides)
