"""What `--help` prints: the groups of `conf/` with the first comment line of each option, and the settings beside them."""

import dataclasses
import shlex
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

GROUPS = ("model", "mode", "calibration", "evaluation", "benchmark", "experiment")
INSTALLED_COMMAND = "speech-quantize"
DISTRIBUTION = "speech-quantization-pipeline"
WIDTH = 118  # columns

_TEXT = """\
Make an ONNX speech model small and fast, and measure what that cost.

  {command} model.onnx --calib recordings/                       a model of yours: kind and mode are found
  {command} model=matcha mode=static                             one run, of a model that ships
  {command} -m model=matcha,vocoder,asr mode=dynamic,static      a sweep
  {command} model=onnx model.path=m.onnx mode=dynamic            a model of yours, by settings
  {command} rerun=outputs/matcha/static/<timestamp>              a past run again
  {command} "compare=[outputs/matcha/*/*]" sort_by=log_mel_l1    several runs side by side
  {command} model=matcha mode=static --cfg job                   the settings, without running

Groups (choose with group=option):
{groups}

Settings beside the groups:
{settings}

Any setting can be given as key=value, such as mode.method=mse or evaluation.samples=20.
Short forms: a path, or path=..., is the model; data=... (or --calib) is what it is calibrated and evaluated on, or, for
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
    return f"python {shlex.quote(path.name if path.parent.absolute() == Path.cwd() else script)}"


def program_version() -> str:
    """Return the version of this program: that of the checkout, or of the installed package."""
    project = config_directory().parent / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return version(DISTRIBUTION)


def help_text(command: str) -> str:
    """Return the help of a command."""
    lines = []
    for group in GROUPS:
        options = options_of(group)
        width = max(map(len, options))
        for number, (option, what) in enumerate(options.items()):
            lines.append(f"  {group if number == 0 else '':<11}  {option:<{width}}  {what}")
    settings = _beside_groups()
    width = max(map(len, settings))
    beside = [
        textwrap.fill(text.rstrip("."), WIDTH, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))
        for name, text in settings.items()
    ]
    return _TEXT.format(command=command, groups="\n".join(lines), settings="\n".join(beside))


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
