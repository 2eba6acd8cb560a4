"""From Hydra's composition to typed settings. The only module that knows what OmegaConf does.

Hydra composes the YAML files of `conf/` over the dataclasses of `settings.py` (`register_schemas`). `to_run_config` converts
the result once into plain dataclasses and checks it once; after that there is no DictConfig. `read_run_config` does the same
for the `config.yaml` of a past run.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.cache.current_cache import CacheConfig
from pipeline.config.choices import ModeKind
from pipeline.config.help_text import help_node
from pipeline.config.mode_settings import (
    MODE_SCHEMAS,
    AnyModeConfig,
    ModeConfig,
)
from pipeline.config.model_name import model_name
from pipeline.config.ranges import (
    cache_out_of_range,
    limits_out_of_range,
    out_of_range,
    package_out_of_range,
    results_out_of_range,
    seed_problems,
    tracking_out_of_range,
    urls_out_of_range,
)
from pipeline.config.saved_settings import read_settings
from pipeline.config.settings import (
    ALL_STAGES,
    BenchmarkConfig,
    CalibrationConfig,
    EvaluationConfig,
    PackageConfig,
    ReportConfig,
    ResultsConfig,
    RunConfig,
    RunSchema,
    RuntimeConfig,
    TrackingConfig,
)
from pipeline.errors import ConfigError, did_you_mean
from pipeline.limits import LimitsConfig

T = TypeVar("T")

ADAPTER_PREFIX = "pipeline.models."  # the only place that a model's `_target_` may name a class of

GROUPS = (
    "model", "mode", "calibration", "evaluation", "benchmark", "runtime", "limits", "cache", "report", "package", "tracking",
    "results",
)  # fmt: skip

RENAMED = {  # settings and options under a former name -> the present one
    "mode=float": "mode=optimize",
    "mode.rewrite": "mode.optimize",
    "mode.folding": "mode.fold_batch_norm",
    "mode.equalization": "mode.cross_layer_equalization",
    "mode.smoothing": "mode.smooth_quant",
    "mode.storage_op_types": "mode.weight_only_op_types",
}


def renamed(former: str) -> str:
    """Return a sentence that says what a setting (`mode.rewrite`) or an option (`mode=float`) is called now, or nothing.

    The sentence starts with a space, so that it can be appended to a message.
    """
    return f" It was renamed: use {RENAMED[former]}." if former in RENAMED else ""


def register_schemas() -> None:
    """Make the settings' dataclasses and the help known to Hydra, in groups of their own: they are not for users to choose.

    `${model_name:...}` in the files of the models becomes known as well.
    """
    OmegaConf.register_new_resolver("model_name", model_name, replace=True)
    store = ConfigStore.instance()
    store.store(group="hydra/help", name="pipeline", node=help_node())  # of this command line; the rest never changes
    if "schema" in store.repo:
        return
    store.store(group="schema", name="run", node=RunSchema(cache=_as_given(CacheConfig)()))
    for kind, schema in MODE_SCHEMAS.items():
        store.store(group="schema/mode", name=kind.value, node=_as_given(schema))
    for group, node in (
        ("calibration", CalibrationConfig),
        ("evaluation", EvaluationConfig),
        ("benchmark", BenchmarkConfig),
        ("package", PackageConfig),
        ("tracking", TrackingConfig),
    ):
        store.store(group="schema", name=group, node=_as_given(node))


def _as_given(schema: type) -> type:
    """Return a schema that leaves switches as they were given.

    OmegaConf would make `true` of 7 while it composes, and a wrong value would be lost; `_convert` checks them instead.
    """
    loosened: list[Any] = []
    for entry in dataclasses.fields(schema):
        if entry.name in switches_of(schema):
            loosened.append((entry.name, Any, dataclasses.field(default=entry.default)))
    return dataclasses.make_dataclass(schema.__name__, loosened, bases=(schema,)) if loosened else schema


def switches_of(schema: type) -> dict[str, bool]:
    """Return the settings that are true or false: name -> whether null is allowed too."""
    hints = {name: hint for name, hint in get_type_hints(schema).items() if hint in (bool, bool | None)}
    return {name: hint != bool for name, hint in hints.items()}  # noqa: E721  a union is not a type


def to_run_config(composed: DictConfig) -> RunConfig:
    """Convert what Hydra composed, or what a past run saved, into typed settings, and check them.

    Raises:
        ConfigError: names every setting that is unknown, missing, of the wrong type or out of its limits.
    """
    try:
        return _run_config(composed)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere, or to what is not allowed
        raise ConfigError(f"{error.full_key or 'the settings'}: {_first_line(error)}") from error


def _run_config(composed: DictConfig) -> RunConfig:
    for key in (*GROUPS, "graph_modes"):
        if (node := composed.get(key)) is not None and not isinstance(node, DictConfig):
            option = f"{key}=<option>" if key in GROUPS else f"+mode@{key}.<graph>=<mode>"
            raise ConfigError(f"{key}: {str(node)[:60]!r} stands where settings belong. Choose an option: {option}.")
    unknown = sorted({str(key) for key in composed} - {f.name for f in dataclasses.fields(RunSchema)})
    problems = [f"{key}: no such setting.{did_you_mean(key, _names(RunSchema))}" for key in unknown]
    values = {
        "model": _convert(composed, "model", _adapter_class(composed), problems),
        "mode": _convert(composed, "mode", _mode_schema(composed.mode, "mode"), problems),
        "calibration": _convert(composed, "calibration", CalibrationConfig, problems),
        "evaluation": _convert(composed, "evaluation", EvaluationConfig, problems),
        "benchmark": _convert(composed, "benchmark", BenchmarkConfig, problems),
        "runtime": _convert(composed, "runtime", RuntimeConfig, problems),
        "limits": _convert(composed, "limits", LimitsConfig, problems),
        "cache": _convert(composed, "cache", CacheConfig, problems),
        "report": _convert(composed, "report", ReportConfig, problems),
        "package": _convert(composed, "package", PackageConfig, problems),
        "tracking": _convert(composed, "tracking", TrackingConfig, problems),
        "results": _convert(composed, "results", ResultsConfig, problems),
    }
    graph_modes = _graph_modes(composed, problems)
    if not problems:
        stages, seed = composed.get("stages"), composed.get("seed")
        groups = (values["calibration"], values["evaluation"], values["benchmark"], values["runtime"])
        for mode in (values["mode"], *graph_modes.values()):
            problems += out_of_range(mode, *groups)
        problems += [*limits_out_of_range(values["limits"]), *cache_out_of_range(values["cache"])]
        problems += [*package_out_of_range(values["package"]), *_stage_problems(stages)]
        problems += seed_problems(seed)
        problems += tracking_out_of_range(values["tracking"])
        problems += [
            problem for key in ("model", "calibration", "evaluation") for problem in urls_out_of_range(key, values[key])
        ]
    if problems:
        raise ConfigError("\n".join(problems))
    packs = values["package"].kind is not None  # choosing a package is asking for it
    selected = tuple(name for name in ALL_STAGES if name in stages or (packs and name == "package"))
    return RunConfig(**values, stages=selected, seed=seed, graph_modes=graph_modes)


def read_run_config(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Read the `config.yaml` of a past run; return it typed, and as plain containers.

    Raises:
        ConfigError: the file is not one that a run has saved.
    """
    loaded = read_settings(path)
    return to_run_config(loaded), to_plain(loaded)


def to_tracking(composed: DictConfig) -> TrackingConfig:
    """Return what keeps runs: of the command alone, so that the file of a stranger's run sends nothing anywhere.

    Raises:
        ConfigError: a setting is wrong, or the library is missing.
    """
    return _of_command(composed, "tracking", TrackingConfig, tracking_out_of_range)


def to_results(composed: DictConfig) -> ResultsConfig:
    """Return where results are copied to: of the command alone, as `to_tracking`.

    Raises:
        ConfigError: the place is wrong, or a library is missing.
    """
    return _of_command(composed, "results", ResultsConfig, results_out_of_range)


def to_cache_config(composed: DictConfig) -> CacheConfig:
    """Convert the settings of the cache alone.

    Raises:
        ConfigError: one is unknown, of the wrong type or out of its limits.
    """
    return _of_command(composed, "cache", CacheConfig, cache_out_of_range)


def _of_command(composed: DictConfig, key: str, schema: type[T], out_of_range: Callable[[T], Sequence[str]]) -> T:
    """Convert and check one group of settings alone."""
    problems: list[str] = []
    found: T | None = _convert(composed, key, schema, problems)
    problems += [] if found is None else out_of_range(found)
    if found is None or problems:
        raise ConfigError("\n".join(problems))
    return found


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Return resolved settings as dicts, lists, strings and numbers: what `config.yaml` and the report hold.

    Raises:
        ConfigError: a setting that has no default was not given.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: not set; it has no default. Give it as {error.full_key}=...") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def save_config(plain: dict[str, Any]) -> str:
    """Return the text of a run's `config.yaml`."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _names(schema: type) -> list[str]:
    return [f.name for f in dataclasses.fields(schema)]


def _adapter_class(composed: DictConfig) -> type:
    target = composed.model.get("_target_")
    if not isinstance(target, str) or not target.startswith(ADAPTER_PREFIX):
        raise ConfigError(
            f"model._target_: {target!r} is not allowed: a model's adapter is a class in {ADAPTER_PREFIX}*, "
            "such as pipeline.models.onnx_file.OnnxFile."
        )
    try:
        adapter = get_class(target)
    except Exception as error:  # Hydra raises ImportError, ValueError or its own, by how far it came
        raise ConfigError(f"model._target_: {target} cannot be imported: {error}") from error
    if not (inspect.isclass(adapter) and dataclasses.is_dataclass(adapter) and hasattr(adapter, "evaluations")):
        raise ConfigError(
            f"model._target_: {target} is not an adapter: an adapter is a dataclass that says how it is evaluated."
        )
    return adapter


def _graph_modes(composed: DictConfig, problems: list[str]) -> dict[str, AnyModeConfig]:
    """Return the modes of single graphs: each a whole mode, as `+mode@graph_modes.<graph>=<mode>` composes it."""
    modes = {}
    given = composed.get("graph_modes") or OmegaConf.create({})
    for name, node in given.items():
        graph = str(name)
        key = f"graph_modes.{graph}"
        if not isinstance(node, DictConfig):
            problems.append(f"{key}: {str(node)!r} is not a mode; choose one with +mode@{key}=<mode>.")
            continue
        found: list[str] = []
        modes[graph] = _convert(given, graph, _mode_schema(node, key), found)
        problems += [f"graph_modes.{problem}" for problem in found]
    return modes


def _mode_schema(node: DictConfig, key: str) -> type[ModeConfig]:
    kind = node.get("kind")
    name = kind.name if isinstance(kind, ModeKind) else str(kind)
    if name not in ModeKind.__members__:
        hint = renamed(f"mode={name}") or did_you_mean(name, ModeKind.__members__)
        raise ConfigError(f"{key}.kind: {name!r} is not a mode.{hint}")
    return MODE_SCHEMAS[ModeKind[name]]


def _convert(composed: DictConfig, key: str, schema: type, problems: list[str]) -> Any:  # noqa: ANN401
    """Return `composed[key]` as an instance of `schema`, or None after appending to `problems`.

    Struct mode rejects unknown keys only in overrides without `+`, and `to_object` drops the rest in silence: so names are
    compared here.
    """
    node = composed.get(key)
    given = {} if node is None else OmegaConf.to_container(node, resolve=False)
    assert isinstance(given, dict)
    given.pop("_target_", None)
    unknown = sorted(str(name) for name in set(given) - set(_names(schema)))
    group = "mode" if issubclass(schema, ModeConfig) else key  # graph_modes.<graph> holds a mode too
    problems += [
        f"{key}.{name}: no such setting.{renamed(f'{group}.{name}') or did_you_mean(name, _names(schema))}" for name in unknown
    ]
    if unknown:
        return None
    try:
        resolved = OmegaConf.to_container(node, resolve=True) if node is not None else {}
        assert isinstance(resolved, dict)
        resolved.pop("_target_", None)
        if wrong := _wrong_switches(key, resolved, schema):
            problems += wrong
            return None
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), resolved))
    except OmegaConfBaseException as error:
        inner = str(error.full_key or "")
        where = inner if inner.startswith(key) else f"{key}.{inner}" if inner else key
        problems.append(f"{where}: {_first_line(error)}")
        return None


def _wrong_switches(key: str, given: dict[str | bytes | int | Enum | float | bool, Any], schema: type) -> list[str]:
    return [
        f"{key}.{name}: {given[name]!r} is not allowed; allowed: true or false{', or null' if optional else ''}."
        for name, optional in switches_of(schema).items()
        if name in given and not isinstance(given[name], bool) and not (optional and given[name] is None)
    ]


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _stage_problems(stages: Any) -> list[str]:  # noqa: ANN401
    if not stages:
        return [f"stages: empty; name at least one of {', '.join(ALL_STAGES)}."]
    if not isinstance(stages, Sequence) or isinstance(stages, str):
        return [f"stages: {stages!r} is no list; name some of {', '.join(ALL_STAGES)}: stages=[load,quantize]."]
    return [f"stages: no stage {name!r}.{did_you_mean(str(name), ALL_STAGES)}" for name in stages if name not in ALL_STAGES]
