"""What a person sees: results on standard output; logs, progress and errors on standard error.

All that goes to standard error goes through one console. It knows of the bars that are drawn there, and so prints above them:
no line is glued to a bar.
"""

import codecs
import contextlib
import functools
import logging
import os
import re
import sys
import time
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

IN_REPORT = "in_report"
"""Attribute of log records that the report repeats: they go into run.log, and to the terminal with the report."""


PLAIN = {"–": "-", "−": "-", "→": "->", "≈": "~", "∞": "inf", "★": "*", "×": "x", "…": "...", "’": "'", "µ": "u"}
"""Characters that reports are written with -> what stands for them where the terminal's encoding lacks them."""

WORD_END = re.compile(r"\s+(?!(?:%|[KMG]iB|[mµ]?s|nat|dB|min|MB)(?:[\s.,;:)]|$))")
"""Where a line may be broken: at a space, but not before a unit."""

PLAINLY = "speech_quantization.plainly"


class PatientConsole(Console):
    """A console whose reader may go away, as `head -1` does: what comes later is dropped, and the work goes on."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        self.quiet = True
        drop_output(self.file.fileno())


@functools.cache
def log_console() -> Console:
    """Return the console of logs, progress bars and errors: standard error."""
    _never_fail(sys.stderr)
    return PatientConsole(stderr=True)


def result_console() -> Console:
    """Return a console for results: standard output."""
    _never_fail(sys.stdout)
    return PatientConsole()


def _never_fail(stream: TextIO) -> None:
    """Let a stream write something readable for what its encoding lacks: a report must not end in an error (`LC_ALL=C`)."""
    codecs.register_error(PLAINLY, _plainly)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=PLAINLY)


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written for characters that cannot be encoded, and where to go on: a handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":  # a byte of a file's name that is in another encoding
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


def drop_output(descriptor: int) -> None:
    """Let what is written to a file descriptor vanish: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def log_without_readers() -> None:
    """Let what logging writes vanish where nobody reads it any more, in handlers of others too (Hydra's `--info | head`)."""
    complain = logging.StreamHandler.handleError

    def gone_or_wrong(handler: "logging.StreamHandler[TextIO]", record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            drop_output(handler.stream.fileno())
        else:
            complain(handler, record)

    logging.StreamHandler.handleError = gone_or_wrong  # type: ignore[method-assign, assignment]


class Paragraph:
    """Text whose words are never cut: a path or a name is whole on its line, however narrow the terminal.

    Lines are broken at spaces on a terminal only. In a file or a pipe, a message is one line, which can be searched for.
    """

    def __init__(self, text: str, style: str = "", *, whole: bool = False, lead: tuple[str, str] = ("", "")) -> None:
        """Keep the text; it is not markup.

        Args:
            text: what is printed.
            style: of all of it.
            whole: never break a line, on a terminal neither: it holds a command or a path that is to be copied.
            lead: what the text begins with, and its style.
        """
        self.text, self.style, self.whole, self.lead = text, style, whole, lead

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        width = options.max_width if console.is_terminal and not self.whole else None
        for number, line in enumerate(wrapped(self.text, width)):
            text = Text(line, style=self.style, no_wrap=True, overflow="ignore")
            if number == 0:
                text.stylize(self.lead[1], 0, len(self.lead[0]))
            yield text


def wrapped(text: str, width: int | None) -> list[str]:
    """Return lines of a text, broken at spaces where they are longer than `width` cells; None: at its own line ends alone.

    A word that is longer than a line is a line of its own. Lines keep their indentation.
    """
    return [part for line in text.split("\n") for part in (_broken(line, width) if width else [line])]


def _broken(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    first, *words = WORD_END.split(line.strip())
    lines = [indent + first]
    for word in words:
        if cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines


class TerminalHandler(logging.Handler):
    """Prints log records above the progress bars. `conf/config.yaml` names it in the place of Hydra's, which tears them."""

    def __init__(self, stream: object = None) -> None:
        """Print to standard error; Hydra's settings name a stream, which is not needed."""
        del stream
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; not one that the report repeats."""
        if getattr(record, IN_REPORT, False):
            return
        try:
            style = "bold red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
            say(self.format(record), style)
        except Exception:  # as every handler of the standard library: a message must not end the program
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return a line: the time of day before what is done, the level before what is wrong."""
        known = record.levelno >= logging.WARNING
        begin = f"{record.levelname.lower()}:" if known else time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{begin} {super().format(record)}"


class LogFile(logging.FileHandler):
    """run.log. Where it can be written no more, as on a full disk, the run goes on, and the terminal says so once."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Say that the file cannot be written; what else goes wrong is a defect, which logging shows."""
        if not isinstance(error := sys.exc_info()[1], OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            say(f"warning: {self.baseFilename} cannot be written ({error.strerror}); the run goes on without it.", "yellow")

    def close(self) -> None:
        """Close the file; what it still held is lost where there is no room for it."""
        with contextlib.suppress(OSError):
            super().close()


def say(text: str, style: str = "") -> None:
    """Print a message to standard error, above the bars."""
    log_console().print(Paragraph(text, style), crop=False)
