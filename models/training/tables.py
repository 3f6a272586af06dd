"""Tables of a recipe as dataclasses: every wrong key and value is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from onnxsmith.errors import BadInput

Count = int  # annotates a field that may be 0
Table = TypeVar("Table")


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**31


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


# What a field may hold, by its annotation. Fields with another one are filled in by the caller.
_CHECKS: dict[object, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a positive whole number", lambda value: _whole(value, 1)),
    "Count": ("a whole number of 0 or more", lambda value: _whole(value, 0)),
    "float": ("a number of 0 or more", _number),
    "float | None": ("a number of 0 or more", _number),
    "str": ("a text", _text),
    "Mapping[str, Any]": ("a table", lambda value: isinstance(value, Mapping)),
}


def fill(cls: type[Table], table: Mapping[str, Any], where: str, **known: Any) -> Table:
    """The dataclass ``cls`` with the values of ``table`` and those that are ``known``.

    Fields are checked by their annotation: ``int`` (positive), ``Count``, ``float``, ``str``, or a table. ``where``
    says in messages what was read. Its module needs ``from __future__ import annotations``.

    Raises:
        BadInput: a key that the dataclass does not have, a missing one, or a value of the wrong kind.
    """
    expected = {field.name: field for field in fields(cls) if field.name not in known}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in expected:
            raise BadInput(f"{where} has an unknown key {key!r}{nearest(key, expected)}")
        kind, fine = _CHECKS[expected[key].type]
        if not fine(value):
            raise BadInput(f"{where} has {key} = {value!r}; {kind} was expected")
    required = (f.name for f in expected.values() if f.default is MISSING and f.default_factory is MISSING)
    if missing := [name for name in required if name not in table]:
        raise BadInput(f"{where} lacks {', '.join(missing)}; give a value")
    return cls(**table, **known)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: the known one that is most like it, or else all."""
    names = sorted(known)
    close = get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables in one. ``second`` wins, and tables within both are merged in the same way."""
    both = dict(first)
    for key, value in second.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both
