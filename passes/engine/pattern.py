"""Patterns say what a piece of graph looks like. They never touch a graph.

A pattern function reads as the math: its first argument builds operators, every other argument names a value::

    def _decomposed(op, x, scale):
        return op.Mul(x, op.Sigmoid(op.Mul(x, scale)))
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Union


@dataclass(frozen=True)
class Source:
    """The line of a pattern file that built a pattern, so that a report can point at it."""

    file: str
    line: int


def caller(depth: int) -> Source:
    frame = sys._getframe(depth + 1)
    return Source(frame.f_code.co_filename, frame.f_lineno)


@dataclass(frozen=True, eq=False)
class Var:
    """Any value that is present; the same name means the same value everywhere in the pattern."""

    name: str


@dataclass(frozen=True, eq=False)
class Const:
    """A constant whose elements equal ``value``. Shapes ``()`` and ``(1,)`` both count as a scalar."""

    value: float | tuple[int, ...]
    rel_tol: float = 1e-5


@dataclass(frozen=True, eq=False)
class AttrVar:
    """An attribute to remember: ``match.attribute(name)`` reads it, schema default included."""

    name: str


@dataclass(frozen=True, eq=False)
class Op:
    """One operator. Listed attributes must agree, counting schema defaults; others are free.

    ``output`` says which of its outputs the pattern continues from.
    """

    op_type: str
    inputs: tuple[Pattern | None, ...]
    attributes: dict[str, object] = field(default_factory=dict)
    domain: str = ""
    output: int = 0
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Either:
    """Alternatives in order of preference. The name of the one that held is kept as a tag."""

    name: str
    choices: dict[str, Pattern]


Pattern = Union[Var, Const, Op, Either]  # noqa: UP007  (the classes refer to it before it exists)


def either(name: str, **choices: Pattern) -> Either:
    """``either("scaling", mul=op.Mul(x, s), none=x)``; ``match.tag("scaling")`` tells which one held."""
    return Either(name, choices)


def attr(name: str) -> AttrVar:
    """``op.Transpose(x, perm=attr("perm"))`` remembers the attribute's value."""
    return AttrVar(name)


class OpPatterns:
    """``op.MatMul(a, b)`` builds the pattern of a MatMul, spelled as a rewrite builds the node itself."""

    def __getattr__(self, op_type: str) -> Callable[..., Op]:
        def build(*inputs: Any, domain: str = "", output: int = 0, **attributes: object) -> Op:
            return Op(op_type, tuple(map(_lift, inputs)), attributes, domain, output, caller(1))

        return build


def _lift(x: Any) -> Pattern | None:
    if isinstance(x, (int, float)):
        return Const(x)
    if isinstance(x, Sequence):
        return Const(tuple(x))
    return x  # type: ignore[no-any-return]


def trace(function: Callable[..., Any]) -> tuple[Op, ...]:
    """The roots of the pattern that ``function`` describes, one per value that it returns."""
    _, *names = inspect.signature(function).parameters
    described = function(OpPatterns(), *map(Var, names))
    return tuple(described) if isinstance(described, Iterable) else (described,)
