"""What `--help` prints: the groups of `conf/` with the first comment line of each option, and the settings beside them."""

import dataclasses
import shutil
import sys
import textwrap
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

from hydra.conf import HelpConf

from pipeline.config.setting_docs import documented
from pipeline.config.settings import RunSchema
from pipeline.paths import config_directory
from pipeline.shell_words import shell_word

GROUPS = ("model", "mode", "calibration", "evaluation", "benchmark", "package", "tracking", "experiment")
INSTALLED_COMMAND = "speech-quantize"
DISTRIBUTION = "speech-quantization-pipeline"
WIDEST = 118  # columns
MIN_TEXT = 40  # columns that a text has beside names, or they get fewer
NARROW = 24  # columns of names beside texts, where the terminal has no room for a column as wide as the longest name

_EXAMPLES = {
    "model.onnx --calib recordings/": "a model of yours: kind and mode are found",
    "model=matcha mode=static": "one run, of a model that ships",
    "-m model=matcha,vocoder,asr mode=dynamic,static": "a sweep",
    "model=onnx model.path=m.onnx mode=dynamic": "a model of yours, by settings",
    "rerun=outputs/matcha/static/<timestamp>": "a past run again",
    "resume=outputs/sweeps/<timestamp>": "a sweep, or a run, that was killed, to its end",
    '"compare=[outputs/matcha/*/*]" sort_by=log_mel_l1': "several runs side by side",
    "serve outputs": "all runs in a browser, also to compare by ear",
    "cache info": "what later runs take from the cache",
    "model=matcha mode=static --cfg job": "the settings, without running",
}

_TEXT = """\
Make an ONNX speech model small and fast, and measure what that cost.

{examples}

Groups (choose with group=option):
{groups}

Settings beside the groups:
{settings}

{rest}
"""

_REST = """\
Any setting can be given as key=value, such as mode.method=mse or evaluation.samples=20.
Short forms: a path, or path=..., is the model; data=... (or --calib) is what it is calibrated and evaluated on, or, for \
the evaluation, eval=... (or --eval). What they stand for is printed.
Keys and values of a run: {command} --cfg job
What each one means: python -m pipeline.config.settings_table
Completion in bash: eval "$({command} --shell-completion install=bash)"
"""


def help_node() -> HelpConf:
    """Return the group `hydra/help` of the command that is running."""
    command = program(sys.argv[0])
    template = help_text(command).replace("$", "$$")  # Hydra fills it in with string.Template
    return HelpConf(app_name=command, header="", footer="", template=template)


def program(script: str) -> str:
    """Return what a user types before the settings.

    Args:
        script: `sys.argv[0]`.
    """
    if not script.endswith(".py"):
        return INSTALLED_COMMAND
    path = Path(script)
    return f"python {shell_word(path.name if path.parent.absolute() == Path.cwd() else script)}"


def program_version() -> str:
    """Return the version of this program: that of the checkout, or of the installed package."""
    project = config_directory().parent / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return version(DISTRIBUTION)


def help_text(command: str, width: int | None = None) -> str:
    """Return the help of a command.

    Args:
        command: what a user types before the settings.
        width: columns that its lines may take; a command or a name that is longer is on a line of its own. None: as many as the
            terminal has.
    """
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 0)).columns if width is None else width)
    groups = [f"  {group}\n{_beside(options_of(group), width, indent=4)}" for group in GROUPS]
    examples = {f"{command} {line}": what for line, what in _EXAMPLES.items()}
    rest = [_filled(line, width) for line in _REST.format(command=command).splitlines()]
    return _TEXT.format(
        examples=_beside(examples, width),
        groups="\n".join(groups),
        settings=_beside({name: text.rstrip(".") for name, text in _beside_groups().items()}, width),
        rest="\n".join(rest),
    )


def _beside(texts: dict[str, str], width: int, *, indent: int = 2) -> str:
    """Return names and, beside each or below it, its text."""
    column = indent + max(map(len, texts)) + 2
    if width - column < MIN_TEXT:
        column = min(column, NARROW)
    lines = []
    for name, text in texts.items():
        head = f"{' ' * indent}{name}"
        below = _filled(text, width, " " * column)
        lines.append(head.ljust(column) + below.lstrip() if len(head) + 2 <= column else f"{head}\n{below}")
    return "\n".join(lines)


def _filled(text: str, width: int, indent: str = "") -> str:
    """Return a text in lines of `width` columns; commands, names and paths are never cut."""
    lines = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def _beside_groups() -> dict[str, str]:
    """Return the settings that belong to no group, and what each means."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(RunSchema).items():
        if name in GROUPS:
            continue
        if dataclasses.is_dataclass(hint):
            found |= {f"{name}.{key}": text for key, text in documented(hint).items()}  # type: ignore[arg-type]
        else:
            found[name] = documented(RunSchema)[name]
    return found


def options_of(group: str) -> dict[str, str]:
    """Return the options of a group, each with the first line of the comment that its file begins with."""
    return {path.stem: _first_comment(path) for path in sorted((config_directory() / group).glob("*.yaml"))}


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ").strip()
    return ""
