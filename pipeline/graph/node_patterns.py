"""Which nodes a setting means: exact names, globs, operator types; a name that matches nothing is an error."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

import onnx

from pipeline.errors import ConfigError, did_you_mean
from pipeline.graph.module_paths import NOWHERE, Paths


def match_nodes(patterns: Sequence[str], names: Collection[str], key: str, paths: Paths = NOWHERE) -> set[str]:
    """Return the nodes that exact names or globs (`*`, `?`, `[...]`) mean, or the paths of modules that nodes lie in.

    An exact name wins over its reading as a glob, since exported names may hold brackets; a module stands for all its nodes.

    Args:
        patterns: what the setting holds.
        names: the nodes that there are.
        key: the full config key, for messages.
        paths: of the modules that nodes lie in.

    Raises:
        ConfigError: a pattern matches no node.
    """
    known = set(names)
    modules: dict[str, set[str]] = {}
    for name in known & paths.keys():
        for path in paths[name]:
            parts = path.split(".")
            for end in range(1, len(parts) + 1):  # a list of modules is no module that an exporter notes, but has a path
                modules.setdefault(".".join(parts[:end]), set()).add(name)
    matched: set[str] = set()
    for pattern in patterns:
        found = {pattern} if pattern in known else modules.get(pattern, set())
        if not found:
            found = {name for name in known if fnmatchcase(name, pattern)}
            found = found.union(*(inside for path, inside in modules.items() if fnmatchcase(path, pattern)))
        if not found:
            near = did_you_mean(pattern, known | modules.keys())
            raise ConfigError(
                f"{key}: no node{' or module' if modules else ''} is named {pattern!r}, and none matches it.{near}"
            )
        matched |= found
    return matched


def check_op_types(wanted: Sequence[str], supported: Iterable[str], present: Collection[str], key: str) -> list[str]:
    """Return the operator types that a setting means; `all` stands for every supported one.

    A type that the quantizer knows but the graph lacks is fine (one mode file serves many models); a type that the
    quantizer does not know is an error.

    Raises:
        ConfigError: a type is not supported, with the nearest that are.
    """
    known = sorted(supported)
    if list(wanted) == [ALL_OPS]:
        return known
    for op_type in wanted:
        if op_type not in known:
            where = " (the graph has it, but this mode cannot quantize it)" if op_type in present else ""
            raise ConfigError(f"{key}: {op_type!r} is not an operator type of this mode{where}.{did_you_mean(op_type, known)}")
    return list(wanted)


def ensure_names(model: onnx.ModelProto) -> None:
    """Give every node without a name one, and every second node of one name another, in place."""
    seen: set[str] = {node.name for node in model.graph.node if node.name}
    used: set[str] = set()
    for node in model.graph.node:
        if node.name and node.name not in used:
            used.add(node.name)
            continue
        base = node.name or f"{node.op_type}_{node.output[0]}"
        name, number = base, 1
        while name in used or (name != node.name and name in seen) or name == node.name:
            name, number = f"{base}_{number}", number + 1
        node.name = name
        used.add(name)
        seen.add(name)


def check_present(wanted: Sequence[str], present: Collection[str], key: str) -> None:
    """Check that a graph has the operator types that a setting names.

    Raises:
        ConfigError: it has not, with the nearest that it has.
    """
    for op_type in wanted:
        if op_type not in present:
            raise ConfigError(f"{key}: the graph has no {op_type!r}.{did_you_mean(op_type, present)}")


ALL_OPS = "all"  # `mode.op_types=[all]`: every type that the quantizer of the mode knows
