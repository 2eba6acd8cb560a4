"""Templates, and the numbers and units in them."""

import base64
import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.measure.benchmark_result import factor
from pipeline.metrics.metric_registry import METRICS
from pipeline.report.html.language import html_language, said, said_of, tr, tr_html
from pipeline.report.terminal import change, format_number
from pipeline.shell_words import shell_word

TEMPLATES = Path(__file__).parent / "templates"
MIB = 1 << 20


def render(template: str, view: dict[str, Any], script: str | None = None) -> str:
    """Fill in a template; everything that is not marked as safe is escaped, and a name that is missing is an error.

    Args:
        template: its file in `templates/`.
        view: what it shows.
        script: the file in `templates/` with the page's JavaScript. The page allows that one by its hash, and no other: what
            comes from a report can run nothing.
    """
    code = "" if script is None else (TEMPLATES / script).read_text(encoding="utf-8")
    given = {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "script": Markup(code),
        "script_hash": base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        "language": html_language(),
    }
    return environment_of(html_language()).get_template(template).render(view | given)


@cache
def environment_of(language: str) -> Environment:
    """Return the environment that a language's templates are compiled in, once: what is constant may be filled in then."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "mib": mib,
        "number": format_number,
        "signed": signed,
        "ms": ms,
        "describe": describe,
        "breakable": breakable,
        "said": said,
        "said_of": said_of,
        "factor": factor,
    }
    environment.globals |= {"_": tr_html}
    return environment


def mib(size_bytes: float) -> str:
    """Return a size with its unit."""
    return f"{size_bytes / MIB:.2f} MiB"


def ms(value: float) -> str:
    """Return a time in three digits that mean something, with its unit."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def signed(value: float) -> str:
    """Return a difference with its sign, a minus as long as a plus."""
    return change(value).replace("-", "−")


def breakable(name: str) -> Markup:
    """Return a name that may be broken behind its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def describe(metric: str) -> str:
    """Return what a metric means, in one line; empty for one that is not known here."""
    return tr(METRICS[metric].description) if metric in METRICS else ""


def shown_path(directory: Path) -> str:
    """Return a directory as one would type it here: relative to where the program was started, where it lies below."""
    path, here = directory.absolute(), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def link_to(file: Path, folder: Path) -> str | None:
    """Return the address of a file, relative to a page in a folder; None: there is no such file."""
    return quote(Path(os.path.relpath(file, folder)).as_posix()) if file.is_file() else None


def command(setting: str, value: str) -> str:
    """Return the command line that gives a setting to run.py, quoted for Hydra and for the shell."""
    return f"python run.py {shell_word(f'{setting}={hydra_value(value)}')}"


def hydra_value(value: str) -> str:
    """Return a text as a value in Hydra's grammar of overrides: quoted where it holds a character that means something."""
    if re.fullmatch(r"[\w./:%+@-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
