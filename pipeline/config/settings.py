"""Every setting: its name, type, unit and default. `pipeline/config/compose.py` composes, converts and checks them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from pipeline.cache.current_cache import CacheConfig
from pipeline.config.choices import CalibrationKind, Language, OnBadSample, PackageKind, SampleRateMismatch, TrackingKind
from pipeline.config.mode_settings import AnyModeConfig
from pipeline.evaluation_kind import EvaluationKind
from pipeline.limits import LimitsConfig

if TYPE_CHECKING:
    from pipeline.models.speech_model import SpeechModel

STAGE_NAMES = ("load", "inspect", "quantize", "benchmark", "evaluate")
ALL_STAGES = ("load", "inspect", "doctor", "quantize", "benchmark", "evaluate", "package")  # two come only where they are named

# The defaults stand here and nowhere else: `conf/` holds only what makes one option of a group differ from another.


@dataclass
class CalibrationConfig:
    """The data that activation ranges come from.

    Attributes:
        kind: the model's own data, arrays of the user's, or seeded noise.
        path: with `real`: any set of utterances; null: the model's own. With `audio`: a folder of recordings. With
            `manifest`: a .jsonl file, or a Kaldi folder (wav.scp and text). With `sentences`: text with a sentence a line.
            With `arrays`: an .npz of `<sample>/<input name>`.
        samples: how many to use at most.
        length: with `random`: the size of each axis whose size the graph leaves open, but the first (1).
        on_sample_rate: what happens to audio of another sample rate than the model's.
        on_bad_sample: what happens to a sample that cannot be used.
    """

    kind: CalibrationKind = MISSING
    path: str | None = None
    samples: int = 32
    length: int = 128
    on_sample_rate: SampleRateMismatch = SampleRateMismatch.resample
    on_bad_sample: OnBadSample = OnBadSample.refuse


@dataclass
class EvaluationConfig:
    """The data and the metrics that quality is measured with.

    Attributes:
        kind: what is compared.
        path: a manifest.jsonl, a Kaldi folder (wav.scp and text), a folder of recordings, a .txt with a sentence a line, or
            an .npz of `<sample>/<input name>`; null: the model's own evaluation set.
        samples: how many to use at most.
        metrics: names to report; empty: all that the kind computes.
        sample_rate_hz: of a model's audio output, where its metadata does not tell.
        labels: an .npy of one class per sample, in the order of the samples, for `accuracy_percent`.
        exchange_parts: the set is split into a half that choices are made on and a half that is reported; true: the other
            way round.
        listen: how many samples to write as audio, where the model speaks: those that quantization changed most, before and
            after, and their recordings where there are some.
        silent_clips: with `asr`: how many clips of silence and noise the recogniser is also given, made with `seed`, to count
            on how many it writes words; null: 42 for a model that goes on from its own words (whisper), none for others.
        node_samples: how many samples the error of every node along the graph is measured on; 0: it is not measured.
        on_sample_rate: what happens to audio of another sample rate than the model's.
        on_bad_sample: what happens to a sample that cannot be used.
    """

    kind: EvaluationKind = MISSING
    path: str | None = None
    samples: int = 1000
    metrics: list[str] = field(default_factory=list)
    sample_rate_hz: int | None = None
    labels: str | None = None
    exchange_parts: bool = False
    listen: int = 3
    silent_clips: int | None = None
    node_samples: int = 2
    on_sample_rate: SampleRateMismatch = SampleRateMismatch.resample
    on_bad_sample: OnBadSample = OnBadSample.refuse


@dataclass
class BenchmarkConfig:
    """How speed and memory are measured.

    Attributes:
        threads: further counts of intra-op threads to time with, after `runtime.threads`, which the main figures are of.
        runs: at least this many interleaved pairs of one original and one quantized inference.
        seconds: and at least this long.
        rounds: how often both sessions are built again: where a session's memory lies moves its latency by percents for as
            long as it lives, so more rounds make the interval narrower than more pairs do.
        interval: end with fewer rounds, runs and seconds where the 95 % interval of the speed-up is no wider than this share of
            it; 0: never.
        runtime: time and check in this version of ONNX Runtime, such as 1.28.0, or in that of an environment, by its Python
            (venv/bin/python); null: in the installed one. What is fast differs between versions.
        host: time on a device: ssh://user@pi, or with :port; adb://serial of an Android device, or adb:// of the only one. It
            needs Python 3.11 with numpy and onnxruntime; models, samples and the timer are sent there, the figures come back,
            and nothing stays. What a mode chooses by speed is timed there as well: mode=auto, and mode.optimize=true.
        host_python: the Python on the device.
        ssh_config: a configuration file of OpenSSH in the place of ~/.ssh/config.
        self_check: also time the original against itself, the same way: that interval should hold 1.
        reuse: take the figures of the same files from the cache, where they were timed on this machine with the same settings
            before; a machine is not as fast at any time, so that by default every run times for itself.
    """

    threads: list[int] = field(default_factory=list)
    runs: int = 20
    seconds: float = 2.0
    rounds: int = 6
    interval: float = 0.03
    runtime: str | None = None
    host: str | None = None
    host_python: str = "python3"
    ssh_config: str | None = None
    self_check: bool = False
    reuse: bool = False


@dataclass
class RuntimeConfig:
    """How models are run, in every stage.

    Attributes:
        threads: intra-op threads of each session of ONNX Runtime: in calibration, search, benchmark and evaluation.
    """

    threads: int = 1


@dataclass
class ReportConfig:
    """How results are shown.

    Attributes:
        language: of report.html, comparison.html and index.html; names, warnings and reasons stay English.
    """

    language: Language = Language.en


@dataclass
class PackageConfig:
    """The directory that goes to a device.

    Attributes:
        kind: what it is for; giving it adds the stage. null: sherpa-onnx where it runs such a model, else any program.
        python: the Python of an environment with sherpa-onnx and soundfile, in which it is tried; null: this one, where it is
            installed.
        samples: how many recordings sherpa-onnx hears, or sentences it speaks, when it is tried.
        ort: also write each graph in ONNX Runtime's own format, with the operators that a minimal build needs; tried in the
            version that benchmark.runtime names.
        license: of the model, for its card: an SPDX identifier such as apache-2.0; null: what the metadata says.
        language: of the model, for its card, such as en; null: what the metadata says.
    """

    kind: PackageKind | None = None
    python: str | None = None
    samples: int = 20
    ort: bool = False
    license: str | None = None
    language: str | None = None


@dataclass
class TrackingConfig:
    """What keeps runs beside their own directories. Of the command, and not of a run: `rerun` and `resume` take it beside them.

    Attributes:
        kind: the program; null: none.
        uri: a server, http://host:5000, or a database, sqlite:////data/mlflow.db; null: what MLFLOW_TRACKING_URI says, or else
            mlflow.db in the working directory.
        experiment: the name that runs are found under.
        models: also log the quantized models.
    """

    kind: TrackingKind | None = None
    uri: str | None = None
    experiment: str = "speech-quantization"
    models: bool = True


@dataclass
class ResultsConfig:
    """Where results go beside `outputs/`. Of the command, and not of a run: `rerun` and `resume` take it beside them.

    Attributes:
        url: any URL of fsspec, such as s3://bucket/runs: at its end a run's directory is copied to
            <url>/<model>/<mode>/<timestamp>, that of a sweep to <url>/sweeps/<timestamp>; also of a run that failed or was
            interrupted. report.json goes last.
    """

    url: str | None = None


@dataclass
class RunSchema:
    """The top level, as Hydra composes it; `model`, `mode` and `benchmark` get their own types by group.

    Attributes:
        stages: which of load, inspect, quantize, benchmark, evaluate, package are run; their order is fixed.
            [load,inspect,doctor] examines a model: `doctor` as the first word of the command stands for it.
        seed: of everything that is drawn: noise inside of models, random calibration data, the order of timings.
        rerun: a run's directory: it is run again from its own config.yaml, and the report says what came out differently; or
            a sweep's: all of its runs.
        resume: the directory of a run or of a sweep that was killed, interrupted or failed: it goes on where it ended, in the
            same directory.
        resume_failed: true: with `resume` of a sweep, also try the runs again that have failed.
        verify: a run's directory: says what has changed since among its inputs, artifacts, versions and the processor.
        compare: runs' directories or globs: they are shown side by side, and nothing is run.
        index: a directory of runs, such as outputs, whose page of all runs, index.html, is made; nothing is run.
        run: a run's directory, whose models speak or listen: with `say` or `transcribe`; nothing else is done.
        say: a text that they speak, fp32 and quantized.
        transcribe: a recording that they write down.
        sort_by: with `compare` or a sweep: a metric, speedup, bytes, latency_ms, ...; null: speedup.
        optimize_for: what a run returns to a sweeper that optimises: a metric, speedup, bytes, size_ratio or quality (the
            first metric of the model, so that less is better), or a list of them; null: the first metric of the model.
        fail_if_worse: true: exit status 3 where quality is beyond its limit or was not measured; see docs/trust.md.
        graph_modes: modes of single graphs of a model: +mode@graph_modes.joiner=dynamic.
    """

    model: Any = MISSING
    mode: Any = MISSING
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    package: Any = field(default_factory=PackageConfig)
    tracking: Any = field(default_factory=TrackingConfig)
    results: ResultsConfig = field(default_factory=ResultsConfig)
    stages: list[str] = field(default_factory=lambda: list(STAGE_NAMES))
    seed: int = 0
    rerun: str | None = None
    resume: str | None = None
    resume_failed: bool = False
    verify: str | None = None
    compare: list[str] = field(default_factory=list)
    index: str | None = None
    run: str | None = None
    say: str | None = None
    transcribe: str | None = None
    sort_by: str | None = None
    optimize_for: Any = None  # a name or a list of names: OmegaConf knows no union of the two
    fail_if_worse: bool = False
    graph_modes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """One run's settings, typed and checked."""

    model: "SpeechModel"
    mode: AnyModeConfig
    calibration: CalibrationConfig
    evaluation: EvaluationConfig
    benchmark: BenchmarkConfig
    runtime: RuntimeConfig
    report: ReportConfig
    stages: tuple[str, ...]
    seed: int
    package: PackageConfig = field(default_factory=PackageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    results: ResultsConfig = field(default_factory=ResultsConfig)
    graph_modes: dict[str, AnyModeConfig] = field(default_factory=dict)  # of graphs that do not follow `mode`
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """The thread counts to time with: that of every stage first."""
        return tuple(dict.fromkeys((self.runtime.threads, *self.benchmark.threads)))

    def mode_of(self, graph: str) -> AnyModeConfig:
        """Return the mode that applies to a graph."""
        return self.graph_modes.get(graph, self.mode)
