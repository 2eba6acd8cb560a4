"""The command line: options of the program, settings as `key=value`, and what is neither.

What Hydra takes goes on to it, values as `override_text.py` writes them. What it would answer with its own usage or grammar is
answered here: what is wrong, and the line that is meant.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_origin, get_type_hints

from hydra.core.override_parser.types import ChoiceSweep, Override

from pipeline.command_line.correction import CommandLineError
from pipeline.command_line.override_text import exists, is_path, is_text, parsed, protected, split_override
from pipeline.command_line.short_form import SHORT_KEYS, SHORT_OPTIONS, expanded
from pipeline.config.help_text import GROUPS, options_of
from pipeline.config.mode_settings import MODE_SCHEMAS
from pipeline.config.settings import BenchmarkConfig, EvaluationConfig, RunSchema
from pipeline.errors import PipelineError, did_you_mean

FLAGS = (
    "--help",
    "-h",
    "--version",
    "--multirun",
    "-m",
    "--run",
    "-r",
    "--resolve",
    "--shell-completion",
    "-sc",
    "--hydra-help",
)
WITH_A_VALUE = (
    "--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn",
)  # fmt: skip
SHOWN = ("job", "hydra", "all")  # by --cfg
LONG = tuple(option for option in (*FLAGS, *WITH_A_VALUE, *SHORT_OPTIONS) if option.startswith("--"))
KEY = re.compile(r"[+~]{0,2}[A-Za-z_$][\w$-]*([./@:][\w$-]+)*", flags=re.ASCII)
LISTS = frozenset(
    name
    for schema in (*MODE_SCHEMAS.values(), BenchmarkConfig, EvaluationConfig, RunSchema)
    for name, hint in get_type_hints(schema).items()
    if get_origin(hint) is list
) | {"quantize"}
"""Settings that are lists."""
REMOVABLE = ("~hydra", "~experiment")
NO_OPTION = (type(None), int, float, dict)  # values that Hydra takes for no option of a group
MODEL_FILE = ".onnx"


@dataclass(frozen=True)
class Prepared:
    """A command line, taken apart.

    Attributes:
        options: of the program and of Hydra, with their values.
        overrides: settings as Hydra takes them.
        stands_for: the settings that a short form stands for; None where none was given.
        notes: what may not be as it was meant.
    """

    options: list[str]
    overrides: list[str]
    stands_for: list[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """What Hydra is given; its parser wants options first."""
        return [*self.options, *self.overrides]


def prepare(given: Sequence[str]) -> Prepared:
    """Take a command line apart.

    Args:
        given: the arguments, without the program's name.

    Raises:
        CommandLineError: something is neither an option nor a setting; the error knows the line that is meant.
    """
    if (torn := _torn_path(list(given))) is not None:
        raise torn
    options, rest = _options(list(given))
    if {"--shell-completion", "-sc"} & set(options):
        return Prepared(options, rest)
    if "job" in options and "--resolve" not in options:
        options.append("--resolve")  # the settings of a run, not how one follows from another
    settings, places = _settings(list(given), rest)
    settings = _without_null_experiment(settings)
    in_sweep = _sweeps(options, settings)
    short = [text for text in settings if text.partition("=")[0] in SHORT_KEYS]
    if empty := [text for text in short if text.endswith("=")]:
        raise CommandLineError(f"{empty[0][:-1]}: empty; give a path.", [text for text in given if text not in empty])
    if short or places:
        settings = expanded(list(given), settings, places)
    for text in settings:
        _check(list(given), text, in_sweep=in_sweep)
    overrides = [protected(text, in_sweep=in_sweep) for text in settings]
    return Prepared(options, overrides, [*options, *settings] if short or places else None, _given_twice(settings))


def _without_null_experiment(settings: list[str]) -> list[str]:
    """Return the settings without `experiment=null`, which is the default, and which Hydra refuses for a group."""
    chosen = [text for text in settings if text.lstrip("+").startswith("experiment=")]
    if not chosen or chosen[-1].partition("=")[2] != "null":
        return settings
    return [text for text in settings if text not in chosen]


def _values(found: Override) -> list[object]:
    """Return the values of a setting: of a list its elements, in a sweep all of its values."""
    swept = found._value.list if isinstance(found._value, ChoiceSweep) else [found.value()]
    return [one for value in swept for one in (value if isinstance(value, list) else [value])]


def _given_twice(settings: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each setting that has two values: as with Hydra, the last one counts."""
    last = {text.partition("=")[0].lstrip("+"): text for text in settings if not text.startswith("~")}
    again = {
        text.partition("=")[0].lstrip("+") for text in settings if last.get(text.partition("=")[0].lstrip("+"), text) != text
    }
    return tuple(f"{key}: given more than once; {last[key]} counts." for key in sorted(again))


def without_mistakes(given: Sequence[str]) -> list[str]:
    """Return a command line in which no mistake is left of those that `prepare` knows the correction of."""
    arguments = list(given)
    for _ in given:
        try:
            prepare(arguments)
        except CommandLineError as error:
            arguments = error.instead
        except PipelineError:  # what it says depends on files: it will be told when it is run
            return arguments
    return arguments


def _options(given: list[str]) -> tuple[list[str], list[str]]:
    """Return the options with their values, and the rest in its order; short options become settings."""
    options: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(given):
        text = given[position]
        name, equals, value = text.partition("=")
        follower = given[position + 1] if position + 1 < len(given) else None
        position += 1
        if text in FLAGS:
            options.append(text)
        elif name in ("--info", "-i") and not equals and (follower is None or "=" in follower):
            options.append(name)  # its value may be left out
        elif name in WITH_A_VALUE or name in SHORT_OPTIONS:
            if not equals:
                if follower is None:
                    raise CommandLineError(f"{name}: a value is missing.", [part for part in given if part != text])
                value, position = follower, position + 1
            if name in ("--cfg", "-c") and value not in SHOWN:
                near = difflib.get_close_matches(value, SHOWN, n=1) or ["job"]
                raise CommandLineError(
                    f"{name} {value}: shows one of {', '.join(SHOWN)}.",
                    [near[0] if part == value else part.replace(f"={value}", f"={near[0]}") for part in given],
                )
            if name in SHORT_OPTIONS:
                rest.append(f"{SHORT_OPTIONS[name]}={value}")
            else:
                options += [name, value]
        elif name == "--experimental-rerun":
            raise CommandLineError(
                "--experimental-rerun: a past run is run again with rerun=<its directory>.",
                [*given[: position - 1], f"rerun={Path(value or follower or '').parent.parent}"],
            )
        elif text.startswith("-") and len(text) > 1:
            raise _unknown_option(given, position - 1)
        else:
            rest.append(text)
    return options, rest


def _unknown_option(given: list[str], position: int) -> CommandLineError:
    """Return the error of a dash that begins no option: a setting is meant, or an option is misspelt."""
    text = given[position]
    name, equals, value = text.partition("=")
    before, after = given[:position], given[position + 1 :]
    key = name.lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(name, LONG, n=1, cutoff=0.75)
    if near and not equals:
        return CommandLineError(f"{text}: no such option. Did you mean {near[0]}?", [*before, near[0], *after])
    told = f"{text}: settings are given without dashes, as key=value."
    if equals:
        return CommandLineError(told, [*before, f"{key}={value}", *after])
    if after and "=" not in after[0] and not after[0].startswith("-") and KEY.fullmatch(key):
        return CommandLineError(told, [*before, f"{key}={after[0]}", *after[1:]])
    return CommandLineError(f"{text}: no such option.{did_you_mean(name, LONG)}", [*before, *after])


def _settings(given: list[str], rest: list[str]) -> tuple[list[str], list[str]]:
    """Return what is `key=value`, and the places of a model.

    Raises:
        CommandLineError: something else is there.
    """
    settings, places = [], []
    for text in rest:
        removed = text.startswith("~") and KEY.fullmatch(text) is not None and not exists(text)
        if removed and not text.startswith(REMOVABLE):
            told = f"{text}: a setting is not removed; where nothing is meant, give null."
            raise CommandLineError(told, [part for part in given if part != text])
        if split_override(text) is not None or removed:
            settings.append(text)
        elif not text.strip():
            raise CommandLineError(f"{text!r}: an empty argument.", [part for part in given if part.strip()])
        elif text.endswith(MODEL_FILE) or (exists(text) and text not in _options_of_groups()):
            places.append(text)
        else:
            raise _no_setting(given, text)
    if len(places) > 1:
        raise CommandLineError(
            f"{places[1]}: a second model; one is quantized at a time.", [text for text in given if text not in places[1:]]
        )
    return settings, places


def _torn_path(given: list[str]) -> CommandLineError | None:
    """Return the error of a path that a shell has split at its spaces, as it does without quotes; None where there is none."""
    for position, text in enumerate(given):
        key, equals, value = text.partition("=")
        for begin, first in ((f"{key}{equals}", value), ("", text)):
            if not first or first.startswith("-") or exists(first):
                continue
            for end in range(position + 2, len(given) + 1):
                path = " ".join([first, *given[position + 1 : end]])
                if exists(path):
                    told = f"{begin}{path}: a shell splits a path at its spaces, unless it stands in quotes."
                    return CommandLineError(told, [*given[:position], f"{begin}{path}", *given[end:]])
    return None


def _no_setting(given: list[str], text: str) -> CommandLineError:
    """Return the error of an argument that is no setting: with a space or a colon in the place of `=`, an option alone, ..."""
    position = given.index(text)
    before, after = given[:position], given[position + 1 :]
    told = f"{text}: not a setting, which is given as key=value, and no model either: there is no such file."
    options, plain, changed = _options_of_groups(), _plain(text), text.replace(":", "=", 1)
    near = [text] if text in options else difflib.get_close_matches(text, options, n=1, cutoff=0.7)
    if (apart := _joined(given, position)) is not None:
        return apart
    if plain != text and split_override(plain):
        return CommandLineError(f"{text}: `=` is the ASCII character.", [*before, plain, *after])
    if split_override(changed) and KEY.fullmatch(changed.partition("=")[0]):
        instead = [*before, changed, *after]
    elif text in GROUPS and after and "=" not in after[0]:
        instead = [*before, f"{text}={after[0]}", *after[1:]]
    else:
        instead = [*before, *(f"{options[name]}={name}" for name in near), *after]
    return CommandLineError(told, instead)


def _joined(given: list[str], position: int) -> CommandLineError | None:
    """Return the error of a setting with spaces around its `=`; None where there are none."""
    before, text, after = given[:position], given[position], given[position + 1 :]
    if text.startswith("=") and before:
        words, rest = [before.pop(), text], after
    elif after and after[0].startswith("="):
        words = [text, *after[: 2 if after[0] == "=" else 1]]
        rest = after[len(words) - 1 :]
    elif before and before[-1].endswith("="):
        words, rest = [before.pop(), text], after
    else:
        return None
    key, *values = (word.strip("=") for word in words)
    return CommandLineError(f"{' '.join(words)}: no spaces around `=`.", [*before, f"{key}={''.join(values)}", *rest])


def _options_of_groups() -> dict[str, str]:
    """Return option -> the first group that has it."""
    return {option: group for group in reversed(GROUPS) for option in options_of(group)}


def _sweeps(options: Sequence[str], settings: Sequence[str]) -> bool:
    swept = any(text.startswith(("experiment=", "+experiment=")) for text in settings)
    return swept or bool({"-m", "--multirun"} & set(options)) or any(text.upper() == "HYDRA.MODE=MULTIRUN" for text in settings)


def _check(given: list[str], text: str, *, in_sweep: bool) -> None:
    """Refuse what Hydra's grammar would refuse in words of its own, and values of a sweep without one.

    Raises:
        CommandLineError: names what is wrong.
    """
    parts = split_override(text)
    if parts is None:
        return
    prefix, key, value = parts

    def instead(*changed: str) -> list[str]:
        return [part for each in given for part in (changed if each == text else (each,))]

    if not KEY.fullmatch(key):
        plain = _plain(key)
        if KEY.fullmatch(plain):
            raise CommandLineError(f"{key}: names of settings are ASCII.", instead(f"{prefix}{plain}={value}"))
        raise CommandLineError(f"{key}: no such setting; --help lists them.", instead())
    if value.startswith("=") and not is_text(key):
        raise CommandLineError(f"{text}: one `=` between name and value.", instead(f"{prefix}{key}={value.lstrip('=')}"))
    if (plain := _plain(value)) != value and not is_text(key) and parsed(f"key={value}") is None:
        raise CommandLineError(f"{text}: its punctuation is not ASCII.", instead(f"{prefix}{key}={plain}"))
    if not value.strip() and is_path(key):
        raise CommandLineError(f"{key}: empty; give a path, or null where none is meant.", instead())
    found = parsed(f"key={value}")
    if key in GROUPS and found is not None and any(isinstance(option, NO_OPTION) for option in _values(found)):
        told = f"{key}: {value} is no option of this group; it has {', '.join(options_of(key))}."
        raise CommandLineError(told, instead())
    if not in_sweep and not is_text(key) and found is not None and isinstance(found._value, ChoiceSweep):
        if key.rpartition(".")[2] in LISTS and "[" not in value:
            raise CommandLineError(f"{text}: a list is written in brackets.", instead(f"{prefix}{key}=[{value}]"))
        raise CommandLineError(f"{text}: several values are a sweep, which -m asks for.", ["-m", *given])


def _plain(text: str) -> str:
    """Return a text with the punctuation of a Chinese keyboard in its ASCII form, letters as they are."""
    return "".join(
        unicodedata.normalize("NFKC", char)
        if unicodedata.east_asian_width(char) == "F"
        else {"、": ",", "。": "."}.get(char, char)
        for char in text
    )
