"""Einsum of two operands becomes Transpose, Reshape and MatMul.

Every letter is one of four: in both operands and the result (batch), in both operands alone (contracted), or in one
operand and the result (free in a, free in b). An ellipsis is so many further letters. Bringing the operands into the
order batch, free, contracted and batch, contracted, free makes the sum a matrix product. Source: ONNX operator
specification, Einsum-12.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import dims, rank


@dataclass(frozen=True)
class _Letters:
    """The letters of an equation by their part in it; ``a``, ``b`` and ``result`` as they are written."""

    a: str
    b: str
    result: str

    def only(self, text: str, *, a: bool, b: bool, result: bool) -> str:
        wanted = ((self.a, a), (self.b, b), (self.result, result))
        return "".join(c for c in text if all((c in where) == there for where, there in wanted))

    @property
    def batch(self) -> str:
        return self.only(self.result, a=True, b=True, result=True)

    @property
    def contracted(self) -> str:
        return self.only(self.a, a=True, b=True, result=False)

    @property
    def free_a(self) -> str:
        return self.only(self.result, a=True, b=False, result=True)

    @property
    def free_b(self) -> str:
        return self.only(self.result, a=False, b=True, result=True)


def _parse(m: Match) -> _Letters | None:
    """The letters, or None for an equation that is no product of two operands with distinct letters."""
    operands, arrow, result = str(m.attribute("equation")).replace(" ", "").partition("->")
    a, comma, b = operands.partition(",")
    words = a, b, result = _spelled_out((a, b, result), [rank(m["a"]), rank(m["b"])])
    if not arrow or not comma or not all(w.isalpha() and len(set(w)) == len(w) for w in words):
        return None
    letters = _Letters(a, b, result)
    known = letters.batch + letters.contracted + letters.free_a + letters.free_b
    return letters if set(known) == set(a + b + result) and letters.contracted else None


def _spelled_out(words: tuple[str, str, str], ranks: list[int | None]) -> tuple[str, str, str]:
    """An ellipsis as letters, where it stands for as many dimensions in every operand that has one."""
    having = [(word, r) for word, r in zip(words, ranks, strict=False) if "..." in word]
    counts = {None if r is None else r - len(word.replace("...", "")) for word, r in having}
    count = counts.pop() if len(counts) == 1 else None
    if count is None or "..." not in words[2]:
        return words
    letters = "".join(c for c in string.ascii_letters if not any(c in w for w in words))[:count]
    a, b, result = (w.replace("...", letters) for w in words)
    return a, b, result


def _product(op: Any, a: Any, b: Any) -> Any:
    return op.Einsum(a, b, equation=attr("equation"))


def _letters(m: Match) -> _Letters:
    letters = _parse(m)
    assert letters is not None, "the rule requires an equation that parses"
    return letters


def _two_operands(m: Match) -> Mismatch | None:
    if _parse(m) is not None:
        return None
    return Mismatch("attribute", "an equation of two operands with distinct letters", m.attribute("equation"), m.root)


def _sizes_known(m: Match) -> Mismatch | None:
    """Letters that are merged or split need known sizes; with batch letters, each operand may have one free."""
    letters = _letters(m)
    for name, word in (("a", letters.a), ("b", letters.b)):
        found = dims(m[name])
        if found is None or len(found) != len(word):
            return Mismatch("rank", f"{name} of {len(word)} dimensions", m[name], m[name])
    if letters.batch and max(len(letters.free_a), len(letters.free_b)) > 1:
        return Mismatch("shape", "at most one free letter an operand beside batch letters", letters.result, m.root)
    sizes = _sizes(m, letters)
    for group in (letters.contracted, letters.free_b):
        if len(group) > 1 and not all(isinstance(sizes[c], int) for c in group):
            return Mismatch("unknown-dim", f"known sizes of {group}", m["b"], m["b"])
    return None


def _sizes(m: Match, letters: _Letters) -> dict[str, int | str | None]:
    a, b = dims(m["a"]), dims(m["b"])
    assert a is not None and b is not None
    return dict(zip(letters.a + letters.b, a + b, strict=True))


def _as_product(op: Builder, m: Match) -> ir.Value:
    letters = _letters(m)
    sizes = _sizes(m, letters)
    rows, columns = letters.batch + letters.free_a, letters.free_b
    left = _permuted(op, m["a"], letters.a, rows + letters.contracted)
    right = _permuted(op, m["b"], letters.b, letters.batch + letters.contracted + columns)
    if len(letters.contracted) > 1:
        left = _reshaped(op, left, [0] * len(rows) + [_count(sizes, letters.contracted)])
    if len(letters.contracted) > 1 or len(columns) != 1:
        depth = _count(sizes, letters.contracted) if len(letters.contracted) > 1 else 0
        right = _reshaped(op, right, [0] * len(letters.batch) + [depth, _count(sizes, columns)])
    if not letters.free_a:
        left = op.Unsqueeze(left, op.constant([-2], "einsum_axes", "int64"))
    product = op.MatMul(left, right)
    if not letters.free_a:
        product = op.Squeeze(product, op.constant([-2], "einsum_axes", "int64"))
    if len(columns) != 1:
        product = _reshaped(op, product, [0] * len(rows) + [_count(sizes, c) for c in columns])
    return _permuted(op, product, rows + columns, letters.result)


def _count(sizes: dict[str, int | str | None], group: str) -> int:
    """The product of known sizes, 1 for no letters."""
    return math.prod(size for c in group if isinstance(size := sizes[c], int))


def _permuted(op: Builder, x: ir.Value, have: str, want: str) -> ir.Value:
    return x if have == want else op.Transpose(x, perm=[have.index(c) for c in want])


def _reshaped(op: Builder, x: ir.Value, target: list[int]) -> ir.Value:
    """0 copies the dimension at the same place."""
    return op.Reshape(x, op.constant(target, "einsum_shape", "int64"))


RULES = [Rule("einsum-product", _product, _as_product, (_two_operands, _sizes_known), anchor="Einsum")]
