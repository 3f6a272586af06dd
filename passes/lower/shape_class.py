"""The shape class of a site: all that decides how long a kernel takes there, and nothing that names the model.

    q=FLOAT[a,b,768] k=FLOAT[a,b,768] v=FLOAT[a,b,768] mask=FLOAT[a,1,b,b] | q_num_heads=12 | padding

Named dimensions are a, b, c in the order in which they come, so that two exporters' names for the batch are one; their
sizes are what measurements are taken at. Numbers inside an operator (epsilon, scale) do not change its time.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.lift.masks import meaning_of

_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class ShapeClass:
    """``names`` are the model's own for the dimensions that ``text`` calls a, b, c."""

    text: str
    names: tuple[str, ...]


def shape_class(m: Match) -> ShapeClass:
    """The class of a matched site: its values by the names that the pattern gives them, its attributes, its mask."""
    known: dict[str, str] = {}
    values = " ".join(f"{name}={_value(v, known)}" for name, v in m.values.items())
    settings = [f"{name}={value}" for name, value in sorted(m.attributes.items()) if isinstance(value, (int, str))]
    settings += [f"{name}={choice}" for name, choice in sorted(m.tags.items())]
    return ShapeClass(" | ".join(filter(None, [values, " ".join(settings), _mask(m.root)])), tuple(known))


def _value(v: ir.Value, known: dict[str, str]) -> str:
    sizes = ",".join("?" if d is None else _renamed(str(d), known) for d in dims(v) or ["?"])
    return f"{v.dtype.name if v.dtype is not None else '?'}[{sizes}]{'!' if constant(v) is not None else ''}"


def _renamed(dim: str, known: dict[str, str]) -> str:
    """A dimension such as ``batch`` or ``12*batch`` with letters for the names in it."""
    return _NAME.sub(lambda found: known.setdefault(found[0], _letter(len(known))), dim)


def _letter(i: int) -> str:
    letters = string.ascii_lowercase
    return letters[i] if i < len(letters) else f"d{i}"


def _mask(node: ir.Node) -> str:
    """What the mask of an attention means, which decides the form that it takes."""
    meaning = meaning_of(node)
    if meaning is None:
        return ""
    said = {"causal": meaning.causal, "padding": meaning.padding is not None, "bias": meaning.bias}
    return "+".join(name for name, holds in said.items() if holds) or "no mask"
