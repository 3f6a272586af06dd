"""Requirements: what must also be true of a match, said so that its failure explains itself."""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import caller
from onnxsmith.passes.engine.values import constant, dims, scalar, widens


def scalar_constant(*names: str) -> Requirement:
    """Each named value that is bound is a constant of one element, which adds no dimensions to what it meets."""
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        for name in names:
            v = m.get(name)
            if v is None:
                continue
            if scalar(v) is None:
                return Mismatch("constant", f"{name} a scalar constant", v, v, source)
            if any(widens(v, node) for node in m.nodes.values() if v in node.inputs):
                return Mismatch("rank", f"{name} of no higher rank than what it meets", v, v, source)
        return None

    return check


def is_constant(*names: str) -> Requirement:
    """Each named value that is bound is an initializer or a Constant node."""
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        for name in names:
            v = m.get(name)
            if v is not None and constant(v) is None:
                return Mismatch("constant", f"{name} a constant", v, v, source)
        return None

    return check


def not_constant(*names: str) -> Requirement:
    """Each named value is computed or given at run time."""
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        for name in names:
            v = m.get(name)
            if v is not None and constant(v) is not None:
                return Mismatch("constant", f"{name} no constant", v, v, source)
        return None

    return check


def dtype(name: str, *allowed: ir.DataType) -> Requirement:
    """The named value has one of these element types."""
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        v = m.get(name)
        if v is None or v.dtype in allowed:
            return None
        return Mismatch("dtype", f"{name} {' or '.join(t.name for t in allowed)}", v, v, source)

    return check


def same_dtype(*names: str) -> Requirement:
    """The named values that are bound share one known element type."""
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        bound = [v for v in map(m.get, names) if v is not None]
        for v in bound:
            if v.dtype is None or v.dtype != bound[0].dtype:
                return Mismatch("dtype", f"the type of {bound[0].name}", v, v, source)
        return None

    return check


def shapes(**specs: str) -> Requirement:
    """``shapes(q="B H S D", k="B H T D")``: equal letters are equal, known dimensions.

    ``...`` stands for any leading dimensions, ``_`` for any one dimension, and a number for itself. A dimension
    that the model leaves unknown equals nothing, not even another unknown one.
    """
    source = caller(1)

    def check(m: Match) -> Mismatch | None:
        bound: dict[str, int | str] = {}
        for name, spec in specs.items():
            v = m.get(name)
            if v is not None and (why := _fits(name, v, spec.split(), bound)) is not None:
                return Mismatch(why[0], why[1], v, v, source)
        return None

    return check


def _fits(name: str, v: ir.Value, letters: list[str], bound: dict[str, int | str]) -> tuple[str, str] | None:
    spec, found = " ".join(letters), dims(v)
    if letters[0] == "...":
        letters = letters[1:]
        found = found[-len(letters) :] if found is not None and len(found) >= len(letters) else None
    if found is None or len(found) != len(letters):
        return "rank", f"{name} [{spec}]"
    for letter, dim in zip(letters, found, strict=True):
        if letter == "_":
            continue
        if dim is None:
            return "unknown-dim", f"{name} [{spec}] with {letter} known; name that dimension of the input (--dims)"
        wanted = int(letter) if letter.isdigit() else bound.setdefault(letter, dim)
        if wanted != dim:
            symbols = isinstance(wanted, str) and isinstance(dim, str)
            hint = "; where they are always equal, give them one name (--dims)" if symbols else ""
            return "shape", f"{name} [{spec}] with {letter}={wanted}{hint}"
    return None
