"""Reading a Hugging Face ``config.json`` into a dataclass, with every wrong value refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from onnxsmith.errors import BadInput
from onnxsmith.models.layers import ACTIVATIONS

Activation = str  # annotates a field that names one of ACTIVATIONS
Config = TypeVar("Config")
_Check = tuple[str, Callable[[Any], bool]]


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


# What a field may hold, by its annotation. Only a plain "int" must be given: sizes have no sensible default.
_CHECKS: dict[str, _Check] = {
    "int": ("a positive integer", _whole),
    "int | None": ("a positive integer or null", _whole),
    "float": ("a positive number", lambda value: type(value) in (int, float) and value > 0),
    "bool": ("true or false", lambda value: type(value) is bool),
    "Activation": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in list(ACTIVATIONS)),
}


def read_config(
    cls: type[Config],
    config: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    *,
    only: Mapping[str, Any] | None = None,
    **known: Any,
) -> Config:
    """Fill the dataclass ``cls`` from the JSON object ``config``.

    Fields are checked by their annotation: ``int`` (positive, must be given), ``int | None``, ``float``, ``bool`` and
    ``Activation`` may be missing or null, and then have the dataclass's default. Other fields come from ``known``.

    Args:
        cls: a dataclass, in a module with ``from __future__ import annotations``.
        config: the parsed file.
        names: the file's name for a field, where it is not the field's own.
        only: keys that choose a variant, with the one value that is supported (and holds when the key is missing).
        known: values of fields that are not in the file.

    Raises:
        BadInput: a size is missing, a value is of the wrong kind, or another variant is asked for.
    """
    for key, supported in (only or {}).items():
        if (found := config.get(key, supported)) != supported:
            raise BadInput(f"config.json asks for {key} = {found!r}; only {supported!r} is supported")
    given, missing = dict(known), []
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in known or field.type not in _CHECKS:
            continue
        name = (names or {}).get(field.name, field.name)
        value = config.get(name)
        expected, fine = _CHECKS[field.type]
        if value is None:
            missing += [name] if field.type == "int" else []
        elif not fine(value):
            raise BadInput(f"config.json has {name} = {value!r}; {expected} was expected")
        else:
            given[field.name] = value
    if missing:
        kind = config.get("model_type", "model")
        raise BadInput(f"config.json lacks {', '.join(missing)}; it is not a complete {kind} config")
    return cls(**given)


def count_labels(config: Mapping[str, Any]) -> int:
    """How many classes a classification head has: the length of ``id2label``, else ``num_labels``, else two.

    Raises BadInput for no positive number of them.
    """
    named = config.get("id2label")
    count = len(named) if isinstance(named, dict) else config.get("num_labels", 2)
    if not _whole(count):
        raise BadInput(f"config.json has num_labels = {count!r}; a positive integer was expected")
    return int(count)


def class_name(config: Mapping[str, Any]) -> str:
    """The first of ``architectures``, which names the head; "" without one. Raises BadInput for no list of names."""
    named = config.get("architectures") or [""]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise BadInput(f"config.json has architectures = {named!r}; a list of class names was expected")
    return named[0]
