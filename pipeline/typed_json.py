"""Dataclasses <-> what JSON holds: every key and type is checked once, where a file is read."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

LEFT_OUT = {"left_out": True}
"""`metadata` of an attribute that is absent from the JSON while it is None; other attributes are null then."""


def to_json(value: Any) -> Any:  # noqa: ANN401
    """Return a dataclass, or whatever is made of them, as JSON holds it; a number that is infinite or NaN becomes null."""
    if dataclasses.is_dataclass(value):
        given = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {field.name: to_json(v) for field, v in given.items() if v is not None or not field.metadata.get("left_out")}
    match value:
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def from_json(kind: type[T], value: Any, *, where: str = "", strict: bool = False) -> T:  # noqa: ANN401
    """Return what JSON holds as a dataclass.

    Args:
        kind: the class.
        value: what JSON holds.
        where: the keys that led to the value, for messages.
        strict: refuse keys that the class lacks; else they are passed over.

    Raises:
        ValueError: a key is missing, or a value is not of the type that the class declares.
    """
    converted: T = _converted(kind, value, where, strict)
    return converted


def _converted(kind: Any, value: Any, where: str, strict: bool) -> Any:  # noqa: ANN401
    is_object, origin, parameters = _shape_of(kind)
    if is_object:
        return _object(kind, value, where, strict)
    if origin in (Union, UnionType):
        return _one_of(kind, parameters, value, where, strict)
    if origin is dict and isinstance(value, Mapping):
        return {key: _converted(parameters[1], item, f"{where}.{key}", strict) for key, item in value.items()}
    if origin is list and isinstance(value, list | tuple):
        return [_converted(parameters[0], item, f"{where}[{index}]", strict) for index, item in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple) and (parameters[1:] == (...,) or len(value) == len(parameters)):
        kinds = zip(parameters[:1] * len(value) if parameters[1:] == (...,) else parameters, value, strict=True)
        return tuple(_converted(part, item, f"{where}[{index}]", strict) for index, (part, item) in enumerate(kinds))
    if kind is Any or (origin is None and _is(kind, value)):
        return Path(value) if kind is Path else value
    raise ValueError(f"{where or 'the file'} must be {_named(kind)}, not {_shown(value)}")


def _object(kind: type, value: Any, where: str, strict: bool) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'the file'} must be an object, not {_shown(value)}")
    types, fields = _types_of(kind), _fields_of(kind)
    given = {}
    for name, field in fields.items():
        key = f"{where}.{name}".lstrip(".")
        if name in value:
            given[name] = _converted(types[name], value[name], key, strict)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{key} is missing")
    if strict and (unknown := [str(key) for key in value if key not in fields]):
        raise ValueError(f"{where or kind.__name__} has keys that {kind.__name__} lacks: {', '.join(unknown)}")
    return kind(**given)


def _one_of(kind: Any, options: tuple[Any, ...], value: Any, where: str, strict: bool) -> Any:  # noqa: ANN401
    if value is None and NoneType in options:
        return None
    others = [option for option in options if option is not NoneType]
    if len(others) == 1:
        return _converted(others[0], value, where, strict)
    for option in others:
        if _is(get_origin(option) or option, value):
            return _converted(option, value, where, strict)
    raise ValueError(f"{where} must be {_named(kind)}, not {_shown(value)}")


def _is(kind: Any, value: Any) -> bool:  # noqa: ANN401
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str if kind is Path else kind)


@cache
def _shape_of(kind: Any) -> tuple[bool, Any, tuple[Any, ...]]:  # noqa: ANN401
    """Return whether a type is a dataclass, and its origin and parameters; asked once for each type, not for each value."""
    return dataclasses.is_dataclass(kind) and isinstance(kind, type), get_origin(kind), get_args(kind)


@cache
def _fields_of(kind: type) -> Mapping[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(kind)}


@cache
def _types_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _named(kind: Any) -> str:  # noqa: ANN401
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", list: "a list", dict: "an object",
             tuple: "a list", NoneType: "null"}  # fmt: skip
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_named(option) for option in get_args(kind))
    return words.get(get_origin(kind) or kind, str(kind))


def _shown(value: Any) -> str:  # noqa: ANN401
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
