"""Every setting with its values, default and meaning, from the dataclasses and the files of `conf/`.

python -m pipeline.config.settings_table            print the tables, as Markdown
python -m pipeline.config.settings_table --write    write them into docs/settings.md, and their summary into README.md
"""

import dataclasses
import sys
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.utils import get_class
from omegaconf import MISSING

from pipeline.config.choices import ModeKind
from pipeline.config.help_text import GROUPS, options_of
from pipeline.config.mode_settings import MODE_SCHEMAS, ModeConfig
from pipeline.config.readers import read_by
from pipeline.config.setting_docs import documented, own_docs
from pipeline.config.settings import (
    BenchmarkConfig,
    CalibrationConfig,
    EvaluationConfig,
    PackageConfig,
    RunSchema,
    TrackingConfig,
)
from pipeline.paths import config_directory

PAGE = Path("docs") / "settings.md"
README = Path("README.md")
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
SCHEMAS = {
    "calibration": CalibrationConfig, "evaluation": EvaluationConfig, "benchmark": BenchmarkConfig, "package": PackageConfig,
    "tracking": TrackingConfig,
}  # fmt: skip
SET_BY_OPTION = ("name", "kind")  # what choosing an option sets; nothing that a user gives
HEADER = "| setting | values | default | meaning |\n|---|---|---|---|"
TYPES = {bool: "true, false", int: "integer", float: "number", str: "text", Any: "any"}

Option = tuple[str, type, dict[str, Any]]  # its name, the class of its settings, what its file sets


def settings_page() -> str:
    """Return docs/settings.md."""
    parts = [
        "# Settings",
        "Made by `python -m pipeline.config.settings_table --write` from the code; a test fails where it is out of date. Every "
        "setting can be given on the command line as `key=value`; a group's option as `group=option`. `null` stands for no "
        "value. `--cfg job` prints the settings of a run. A setting that is given to a run that never reads it is an error; to "
        "a sweep, where it may be meant for other jobs, a warning. `stages` does not count: `stages=[load]` tries settings.",
        "## Beside the groups",
        _table(_rows("", [("", RunSchema, {})], _own_names(RunSchema))),
    ]
    for name, schema in _sections():
        parts += [f"## {name}", _summary_of(schema), _table(_rows(f"{name}.", [("", schema, {})], _names(schema)))]
    for group in ("model", "mode", *SCHEMAS):
        parts += [f"## {group}", _options_table(group)]
        parts += [part for title, rows in _tables_of(group) for part in (f"### {title}", _table(rows))]
    parts += ["## experiment", _options_table("experiment")]
    return "\n\n".join(parts) + "\n"


def readme_table() -> str:
    """Return the summary in README.md: the options of each group, and the names of the settings."""
    lines = ["| with | settings |", "|---|---|"]
    for group in GROUPS:
        for title, rows in _tables_of(group):
            chosen = f"`{group}` = {_code(options_of(group))}" if title == f"every {group}" else _code(title.split(", "))
            lines.append(f"| {chosen} | {_code(row[0].rpartition('.')[2] for row in rows)} |")
    lines.append(f"| `experiment` = {_code(options_of('experiment'))} | |")
    beside = [row[0] for row in _rows("", [("", RunSchema, {})], _own_names(RunSchema))]
    beside += [f"{name}.{setting}" for name, schema in _sections() for setting in _names(schema)]
    lines.append(f"| any of them | {_code(beside)} |")
    return "\n".join(lines)


def with_readme_table(readme: str) -> str:
    """Return the text of README.md with the summary between its markers made again."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{readme_table()}\n{END}{after}"


def _tables_of(group: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the tables of a group: title and rows; what all options share first."""
    options = _options(group)
    if group == "experiment":
        return
    if group in SCHEMAS:
        yield f"every {group}", _rows(f"{group}.", options, _names(SCHEMAS[group]))
        return
    shared = _names(ModeConfig) if group == "mode" else _common(options)
    yield f"every {group}", _rows(f"{group}.", options, shared)
    by_class: dict[type, list[Option]] = {}
    for option in options:
        by_class.setdefault(option[1], []).append(option)
    for schema, members in by_class.items():
        own = [name for name in _names(schema) if name not in shared or (name in own_docs(schema) and group == "model")]
        if own:
            yield ", ".join(f"{group}={name}" for name, _, _ in members), _rows(f"{group}.", members, own)


def _options(group: str) -> list[Option]:
    """Return the options of a group: name, class of its settings, values that its file sets."""
    found = []
    for name in options_of(group):
        values = yaml.safe_load((config_directory() / group / f"{name}.yaml").read_text(encoding="utf-8"))
        values.pop("defaults", None)
        target = values.pop("_target_", None)
        if group == "mode":
            schema: type = MODE_SCHEMAS[ModeKind[values["kind"]]]
        else:
            schema = get_class(target) if target else SCHEMAS.get(group, RunSchema)
        found.append((name, schema, values))
    return found


def _rows(prefix: str, options: Sequence[Option], names: Sequence[str]) -> list[list[str]]:
    """Return a row per setting: full name, values, default, meaning."""
    rows = []
    for name in names:
        having = [option for option in options if name in _names(option[1])]
        schema = having[0][1] if len({option[1] for option in having}) == 1 else _declaring(having[0][1], name)
        values = _type_text(get_type_hints(schema)[name])
        meaning = " ".join(filter(None, (documented(schema).get(name, ""), read_by(prefix + name))))
        rows.append([prefix + name, values, _default_text(name, having), meaning])
    return rows


def _default_text(name: str, options: Sequence[Option]) -> str:
    """Return the default; where options differ, the most frequent one, and the others by option."""
    defaults = {option: _value_text(values.get(name, _default(schema, name))) for option, schema, values in options}
    if name == "name":
        return "the option, or your file's name"
    texts = list(defaults.values())
    usual = max(dict.fromkeys(texts), key=texts.count)
    if texts.count(usual) == 1 and len(texts) > 1:
        return "; ".join(f"{option}: {text}" for option, text in defaults.items())
    apart = [f"{option}: {text}" for option, text in defaults.items() if text != usual]
    return "; ".join([usual, *apart])


def _default(schema: type, name: str) -> Any:  # noqa: ANN401
    [entry] = [entry for entry in dataclasses.fields(schema) if entry.name == name]
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return MISSING if entry.default is dataclasses.MISSING else entry.default


def _value_text(value: Any) -> str:  # noqa: ANN401
    """Return a value as it is written in YAML."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return f"[{', '.join(map(_value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "must be given" if value == MISSING else str(value)


def _type_text(hint: Any) -> str:  # noqa: ANN401
    """Return what a setting takes, in the words of a person who writes YAML."""
    if get_origin(hint) in (Union, types.UnionType):
        return ", ".join(_type_text(part) for part in get_args(hint) if part is not type(None)) + ", null"
    if get_origin(hint) is list:
        return f"list of {_type_text(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"name: {_type_text(get_args(hint)[1])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(hint.__members__)
    return TYPES[hint]


def _names(schema: type) -> list[str]:
    own = ("kind",) if not issubclass(schema, ModeConfig) else SET_BY_OPTION  # a model's name is a setting of the user's too
    return [entry.name for entry in dataclasses.fields(schema) if entry.name not in own]


def _own_names(schema: type) -> list[str]:
    """Return the settings of the top level that are no group and no section."""
    sections = {name for name, _ in _sections()}
    return [name for name in _names(schema) if name not in (*GROUPS, *sections)]


def _sections() -> list[tuple[str, type]]:
    """Return the parts of the top level that have settings of their own and no options to choose from."""
    hints = get_type_hints(RunSchema)
    return [(name, hint) for name, hint in hints.items() if dataclasses.is_dataclass(hint) and name not in GROUPS]  # type: ignore[misc]


def _common(options: Sequence[Option]) -> list[str]:
    """Return the settings that all models have, those of their common base."""
    bases = [set(schema.__mro__) for _, schema, _ in options]
    shared = next(base for base in options[0][1].__mro__ if all(base in those for those in bases))
    return _names(shared)


def _declaring(schema: type, name: str) -> type:
    """Return the base that declares a setting."""
    return next(base for base in reversed(schema.__mro__) if name in getattr(base, "__annotations__", {}))


def _summary_of(schema: type) -> str:
    return (schema.__doc__ or "").splitlines()[0]


def _options_table(group: str) -> str:
    rows = [f"| `{group}={option}` | {_escaped(what)} |" for option, what in options_of(group).items()]
    return "\n".join(["| option | |", "|---|---|", *rows])


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [
        f"| `{name}` | {_escaped(values)} | {_escaped(default)} | {_escaped(what)} |" for name, values, default, what in rows
    ]
    return "\n".join([HEADER, *lines])


def _escaped(text: str) -> str:
    """Return text for a cell; what stands between backticks is taken literally by Markdown, but for the bar."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _code(names: Any) -> str:  # noqa: ANN401
    return ", ".join(f"`{name}`" for name in names)


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or write them into the repository that is the working directory."""
    if arguments and list(arguments) != ["--write"]:
        print(f"unknown: {' '.join(arguments)}; the only option is --write", file=sys.stderr)
        return 2
    if not arguments:
        print(settings_page(), end="")
        return 0
    PAGE.write_text(settings_page(), encoding="utf-8")
    README.write_text(with_readme_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
