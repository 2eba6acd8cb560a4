"""Which values of a setting are allowed, where its type does not say it."""

import dataclasses
import re
from enum import Enum
from importlib.util import find_spec
from urllib.parse import urlsplit

from pipeline.cache.current_cache import CacheConfig
from pipeline.config.choices import Format, IntegerType
from pipeline.config.mode_settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.config.settings import (
    BenchmarkConfig,
    CalibrationConfig,
    EvaluationConfig,
    PackageConfig,
    ResultsConfig,
    RuntimeConfig,
    TrackingConfig,
)
from pipeline.errors import ConfigError, DataError
from pipeline.extras import how_to_install
from pipeline.limits import LimitsConfig
from pipeline.paths import is_place
from pipeline.urls import file_system, is_url, url_problem

LARGEST_LIMIT = 10**9  # of seconds or megabytes: what systems are asked to keep to must fit into their numbers
MOST_THREADS = 1024  # ONNX Runtime starts them all


def limits_out_of_range(limits: LimitsConfig) -> list[str]:
    """Return a sentence for each limit that is none."""
    given = dataclasses.asdict(limits)
    return [
        f"limits.{name}: {value} is out of limits; allowed: above 0, at most {LARGEST_LIMIT}."
        for name, value in given.items()
        if value is not None and not 0 < value <= LARGEST_LIMIT
    ]


def seed_problems(seed: object) -> list[str]:
    """Return a sentence where a seed is none."""
    if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
        return []
    return [f"seed: {seed!r} is out of limits; allowed: a whole number, 0 or more."]


def cache_out_of_range(cache: CacheConfig) -> list[str]:
    """Return a sentence for each setting of the cache that is out of its range."""
    found = [] if cache.max_mb > 0 else [f"cache.max_mb: {cache.max_mb} is out of limits; allowed: above 0."]
    if cache.dir is not None and not cache.dir.strip():
        found.append("cache.dir: empty; give a directory, or leave it out. cache.enabled=false keeps nothing.")
    if is_url(cache.dir):
        found.append(
            f"cache.dir: {without_password(str(cache.dir))} is a URL; the cache is a directory of this machine or of a network "
            "file system, which jobs lock. Give its path."
        )
    return found


def tracking_out_of_range(tracking: TrackingConfig) -> list[str]:
    """Return a sentence for each setting of what keeps runs that cannot be; a library that is missing is one."""
    found = []
    if tracking.kind is not None and find_spec("mlflow") is None:
        found.append(f"tracking=mlflow: needs MLflow: {how_to_install('tracking')}")
    if tracking.uri is not None and (wrong := address_problem(tracking.uri)) is not None:
        found.append(f"tracking.uri: {tracking.uri if 'password' not in wrong else 'the address'} {wrong}")
    return found


def results_out_of_range(results: ResultsConfig) -> list[str]:
    """Return what is wrong with the place that results are copied to; a library that is missing is that too."""
    if results.url is None:
        return []
    if not is_url(results.url):
        return [
            f"results.url: {results.url!r} is no URL, such as s3://bucket/runs. Every run is in outputs/ anyway, or where "
            "hydra.run.dir says."
        ]
    try:
        file_system(results.url)
    except (ConfigError, DataError) as error:
        return [f"results.url: {error}"]
    return []


def urls_out_of_range(group: str, settings: object) -> list[str]:
    """Return a sentence for each URL in the place of a path that cannot be one, or shows a password."""
    found = []
    for key, value in vars(settings).items():
        if is_place(key, value) and is_url(value) and (problem := url_problem(value)) is not None:
            found.append(f"{group}.{key}: {problem}")
    return found


def without_password(uri: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


def address_problem(uri: str) -> str | None:
    """Return what is wrong with the address of a server or a database, as the end of a sentence; None: nothing."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file") or len(parts.scheme) == 1:  # a path, of Windows too
        return "is a path: MLflow no longer keeps runs in files. Give sqlite:///<path>.db, or the http:// of a server."
    if parts.scheme in ("http", "https") and parts.password:
        return "holds a password, which commands and logs would show. Give it in MLFLOW_TRACKING_PASSWORD."
    return None


def package_out_of_range(package: PackageConfig) -> list[str]:
    """Return a sentence for each setting of a package that is out of its range."""
    if package.samples >= 1:
        return []
    return [f"package.samples: {package.samples} is out of limits; allowed: at least 1."]


def out_of_range(
    mode: AnyModeConfig,
    calibration: CalibrationConfig,
    evaluation: EvaluationConfig,
    benchmark: BenchmarkConfig,
    runtime: RuntimeConfig,
) -> list[str]:
    """Return a sentence for each setting of a mode and its data that is out of its range."""
    checks: list[tuple[bool, str, object, str]] = [
        (calibration.samples >= 1, "calibration.samples", calibration.samples, "at least 1"),
        (calibration.length >= 1, "calibration.length", calibration.length, "at least 1"),
        (evaluation.samples >= 1, "evaluation.samples", evaluation.samples, "at least 1"),
        (evaluation.listen >= 0, "evaluation.listen", evaluation.listen, "at least 0"),
        ((evaluation.silent_clips or 0) >= 0, "evaluation.silent_clips", evaluation.silent_clips, "null or at least 0"),
        (evaluation.node_samples >= 0, "evaluation.node_samples", evaluation.node_samples, "at least 0"),
        ((evaluation.sample_rate_hz or 1) >= 1, "evaluation.sample_rate_hz", evaluation.sample_rate_hz, "at least 1"),
        (
            _are_thread_counts(benchmark.threads),
            "benchmark.threads",
            benchmark.threads,
            f"a list of numbers from 1 to {MOST_THREADS}, each once",
        ),
        (1 <= runtime.threads <= MOST_THREADS, "runtime.threads", runtime.threads, f"1 to {MOST_THREADS}"),
        (
            benchmark.host is None or benchmark.runtime is None,
            "benchmark.runtime",
            benchmark.runtime,
            "null with benchmark.host: the device has its own",
        ),
        (benchmark.runs >= 5, "benchmark.runs", benchmark.runs, "at least 5"),
        (benchmark.seconds >= 0, "benchmark.seconds", benchmark.seconds, "at least 0"),
        (benchmark.interval >= 0, "benchmark.interval", benchmark.interval, "at least 0"),
        (benchmark.rounds >= 2, "benchmark.rounds", benchmark.rounds, "at least 2: one can tell nothing about others"),
        (mode.opset is None or 7 <= mode.opset <= 25, "mode.opset", mode.opset, "null or 7 to 25"),
    ]
    match mode:
        case StaticConfig():
            eight = (IntegerType.int8, IntegerType.uint8)
            sixteen = (IntegerType.int16, IntegerType.uint16)
            checks += [
                (50 < mode.percentile <= 100, "mode.percentile", mode.percentile, "above 50, at most 100"),
                (0 <= mode.momentum < 1, "mode.momentum", mode.momentum, "0 or more, below 1"),
                (mode.min_channels >= 1, "mode.min_channels", mode.min_channels, "at least 1"),
                (
                    mode.activation_type in (None, *eight, *sixteen),
                    "mode.activation_type",
                    mode.activation_type,
                    "int8, uint8, int16 or uint16",
                ),
                (
                    mode.format is Format.qdq
                    or (mode.activation_type in (None, *eight) and mode.weight_type in (None, *eight)),
                    "mode.format",
                    mode.format.name,
                    "qdq, where a type is not of 8 bits",
                ),
            ]
            checks.append((mode.reconstruct_seconds > 0, "mode.reconstruct_seconds", mode.reconstruct_seconds, "above 0"))
        case DynamicConfig():
            checks.append(
                (
                    mode.weight_type in (None, IntegerType.int8, IntegerType.uint8),
                    "mode.weight_type",
                    mode.weight_type,
                    "null, int8 or uint8",
                )
            )
        case WeightOnlyConfig():
            checks += [
                (mode.bits in (4, 8), "mode.bits", mode.bits, "4 or 8"),
                (
                    mode.block_size in (16, 32, 64, 128, 256),
                    "mode.block_size",
                    mode.block_size,
                    "16, 32, 64, 128 or 256",
                ),
                (0 <= mode.accuracy_level <= 4, "mode.accuracy_level", mode.accuracy_level, "0 to 4"),
            ]
        case OptimizeConfig():
            checks.append((mode.optimize, "mode.optimize", mode.optimize, "true, since mode=optimize does nothing else"))
        case AutoConfig():
            positive = [("max_loss", mode.max_loss), ("min_speedup", mode.min_speedup), ("max_bytes", mode.max_bytes)]
            checks += [(value is None or value > 0, f"mode.{key}", value, "null or above 0") for key, value in positive]
            checks += [
                (mode.max_length_change >= 0, "mode.max_length_change", mode.max_length_change, "0 or more"),
                (0 <= mode.size_weight <= 10, "mode.size_weight", mode.size_weight, "0 to 10"),
                (mode.seconds > 0, "mode.seconds", mode.seconds, "above 0"),
                (mode.samples is None or mode.samples >= 1, "mode.samples", mode.samples, "null or at least 1"),
                (mode.reconstruct_seconds > 0, "mode.reconstruct_seconds", mode.reconstruct_seconds, "above 0"),
                (mode.probes >= 1, "mode.probes", mode.probes, "at least 1"),
                (50 < mode.percentile <= 100, "mode.percentile", mode.percentile, "above 50, at most 100"),
            ]
        case Fp16Config():
            pass
    return [
        *_unknown_runtime(mode),
        *(
            f"{key}: {found.name if isinstance(found, Enum) else found} is out of limits; allowed: {allowed}."
            for fine, key, found, allowed in checks
            if not fine
        ),
    ]


def _unknown_runtime(mode: AnyModeConfig) -> list[str]:
    if mode.runtime is None:
        return []
    from pipeline.graph.runtime_versions import parse_version

    try:
        parse_version(mode.runtime, "mode.runtime")
    except ConfigError as error:
        return [str(error)]
    return []


def _are_thread_counts(counts: list[int]) -> bool:
    return len(set(counts)) == len(counts) and all(1 <= count <= MOST_THREADS for count in counts)
