"""A rule says four things: what it looks for, what must also hold, what it builds, and what it should not leave."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement, Stays, match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import Op, trace


@dataclass(frozen=True)
class Rule:
    """``rewrite(op, match)`` is pure: it builds nodes from the match and returns one value per pattern root.

    ``anchor`` is an operator whose presence makes a reader expect this rule to fire: one that is left over gets
    one remark. ``stays`` tells which inner values others may read too: their nodes are left for those, and what is
    built computes the same a second time. Names are kebab-case nouns of the result.
    """

    name: str
    pattern: Callable[..., Any]
    rewrite: Callable[[Builder, Match], ir.Value | Sequence[ir.Value]]
    where: tuple[Requirement, ...] = ()
    anchor: str = ""
    stays: Stays | None = None

    @functools.cached_property
    def roots(self) -> tuple[Op, ...]:
        return trace(self.pattern)

    @property
    def documentation(self) -> str:
        """The docstring of the file that holds the pattern: printed by ``explain --rule``."""
        return (sys.modules[self.pattern.__module__].__doc__ or "").strip()

    def match(self, node: ir.Node) -> Match | Mismatch:
        return match(self.roots, node, self.where, self.stays)

    def build(self, found: Match) -> tuple[Builder, tuple[ir.Value, ...]]:
        op = Builder()
        built = self.rewrite(op, found)
        return op, (built,) if isinstance(built, ir.Value) else tuple(built)
