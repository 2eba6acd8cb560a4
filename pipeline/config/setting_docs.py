"""What the dataclasses of the settings say of themselves: the `Attributes:` of their docstrings."""

import inspect
import re

_ENTRY = re.compile(r"(\w+): (.*)")


def documented(schema: type) -> dict[str, str]:
    """Return what each setting of a dataclass means, on one line: its own docstring goes before those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        found |= own_docs(base)
    return found


def own_docs(schema: type) -> dict[str, str]:
    """Return the `Attributes:` of a class's own docstring, each on one line."""
    text = inspect.cleandoc(schema.__dict__.get("__doc__") or "")
    _, _, section = text.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.strip():
            break
        entry = _ENTRY.fullmatch(line.strip()) if line.startswith("    ") and not line.startswith("     ") else None
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] += f" {line.strip()}"
    return found
