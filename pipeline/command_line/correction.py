"""The line to paste after a mistake."""

import re
import sys
from collections.abc import Sequence
from pathlib import PurePath

from pipeline.command_line.override_text import split_override
from pipeline.config.help_text import program
from pipeline.errors import ConfigError
from pipeline.shell_words import shell_line

NEAREST = re.compile(r"Did you mean (\S+?)(?: or .*)?\?")
NEAREST_FILE = re.compile(r"Did you mean (.+?)\?")  # alone, and with spaces in its name
LEFT_OUT = (
    "would have no effect", "is out of limits", "is not allowed", "cannot be converted", "could not be converted", "Value '",
    "no such setting", " not in ",
)  # fmt: skip
"""What an error says that no other value is known for: without the setting the run goes on."""
PRESENT = re.compile(r"It was renamed: use (\S+?)\.(?:\s|$)")


class CommandLineError(ConfigError):
    """A command line that no run can be made of.

    Attributes:
        instead: the arguments of the command that is meant, or of the nearest one that works.
    """

    def __init__(self, message: str, instead: Sequence[str]) -> None:
        """Say what is wrong, and what to give instead."""
        super().__init__(message)
        self.instead = list(instead)


def command_of(arguments: Sequence[str]) -> str:
    """Return a command as it is typed into a shell."""
    return f"{program(sys.argv[0])} {shell_line(arguments)}"


def corrected(given: Sequence[str], message: str) -> list[str] | None:
    """Return the arguments with the setting that an error names replaced by the nearest one, or left out where none is near.

    Args:
        given: the arguments of the command that failed.
        message: of the error: `key: what was found, what is allowed. Did you mean ...?`

    Returns:
        None where the error names no setting of the command line, or where leaving it out could not help.
    """
    arguments = list(given)
    changed = False
    for line in message.splitlines():
        subject = line.partition(": ")[0]
        for position, text in enumerate(arguments):
            replaced = _replaced(text, subject, line)
            if replaced is not None:
                arguments[position] = replaced
                changed = True
    return [text for text in arguments if text] if changed and arguments != list(given) else None


def _replaced(text: str, subject: str, line: str) -> str | None:
    """Return what to write in the place of an argument, nothing where it is to be left out; None: the error is not about it."""
    parts = split_override(text)
    if parts is None:
        return None
    prefix, key, value = parts
    if subject != key and key.startswith(f"{subject}."):
        return "" if " not in " in line else None
    if subject == key:
        return _other_setting(prefix, key, value, line)
    chosen = subject.partition("=")[2]
    if subject == f"{key}={chosen}" and chosen in value.split(","):
        return _other_option(prefix, key, value, chosen, line)
    return None


def _other_option(prefix: str, key: str, value: str, chosen: str, line: str) -> str:
    """Return the choice of an option that is there, in the place of one that is not, alone or in a sweep."""
    near, present = NEAREST.search(line), PRESENT.search(line)
    if present:
        return f"{prefix}{present[1]}"
    return f"{prefix}{key}={','.join(near[1] if part == chosen else part for part in value.split(','))}" if near else ""


def _other_setting(prefix: str, key: str, value: str, line: str) -> str | None:
    """Return a setting that is there, or a value that it may have, in the place of one that is not."""
    near, present = NEAREST.search(line), PRESENT.search(line)
    parent, dot, _ = key.rpartition(".")
    found = next((word for word in re.findall(r"'([^']+)'", line) if word in value), None)
    if present:
        instead = f"{prefix.replace('+', '')}{present[1]}={value}"
    elif near and ("no such setting" in line or " not in " in line):
        instead = f"{parent}{dot}{near[1]}={value}"
    elif "a list is needed" in line:
        instead = f"{prefix}{key}=[{value.strip('[], ')}]"
    elif ("not found" in line or "there is no file" in line) and (file := NEAREST_FILE.search(line)):
        instead = f"{prefix}{key}={PurePath(value).with_name(file[1])}"
    elif near and found:
        instead = f"{prefix}{key}={value.replace(found, near[1])}"
    else:
        return "" if any(words in line for words in LEFT_OUT) else None
    return instead
