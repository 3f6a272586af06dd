"""Symbolic shapes: what a shape computation will give, as products of numbers and named dimensions.

Exporters compute reshape targets from ``Shape``, ``Slice``, ``Gather``, ``Concat`` and ``Mul``. Evaluating those
symbolically tells that ``Concat(Shape(x)[0:1], [12], ...)`` is ``[batch, 12, ...]`` whatever the spelling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.values import attribute, constant, dims

_PRODUCT = re.compile(r"\d+(\*[^*\s]+)+|[^*\s]+(\*[^*\s]+)+")
_SMALL = 64  # a shape has few elements; larger integer tensors are data


@dataclass(frozen=True)
class Size:
    """``factor`` times the product of named dimensions: 12, batch, 12*batch."""

    factor: int
    names: tuple[str, ...] = ()

    def __mul__(self, other: Size) -> Size:
        return Size(self.factor * other.factor, tuple(sorted(self.names + other.names)))

    def __floordiv__(self, other: Size) -> Size | None:
        """The exact quotient, or None when there is none in this form."""
        names = list(self.names)
        for name in other.names:
            if name not in names:
                return None
            names.remove(name)
        if other.factor == 0 or self.factor % other.factor:
            return None
        return Size(self.factor // other.factor, tuple(names))

    def __str__(self) -> str:
        parts = [str(self.factor)] * (self.factor != 1 or not self.names) + list(self.names)
        return "*".join(parts)

    @property
    def known(self) -> int | None:
        return None if self.names else self.factor

    @property
    def dim(self) -> int | str:
        return self.factor if not self.names else str(self)


ONE = Size(1)


def size_of(dim: int | str) -> Size:
    """Read a dimension; a name such as ``12*batch`` is the product that it says."""
    if isinstance(dim, int):
        return Size(dim)
    if _PRODUCT.fullmatch(dim):
        return product([size_of(int(p) if p.isdigit() else p) for p in dim.split("*")])
    return Size(1, (dim,))


def unnamed(dim: int | str | None) -> bool:
    """Unknown, named by ONNX's inference or by :func:`sizes`, or a formula as PyTorch left it: (length**2)//length."""
    return dim is None or (isinstance(dim, str) and (dim.startswith(("unk__", "?")) or "//" in dim or "**" in dim))


def product(sizes: Sequence[Size]) -> Size:
    return math.prod(sizes, start=ONE)


def total(sizes: Sequence[Size]) -> Size:
    """The sum; that of named dimensions is a name of its own, unknown ("?") where a part of it is."""
    number = sum(s.factor for s in sizes if s.known is not None)
    named = [s for s in sizes if s.known is None]
    if not named:
        return Size(number)
    if len(named) == 1 and not number:
        return named[0]
    unknown = any(name.startswith("?") for s in named for name in s.names)
    text = " + ".join([*map(str, named), *([str(number)] if number else [])])
    return Size(1, (f"?{text}" if unknown else text,))


def sizes(v: ir.Value | None) -> list[Size] | None:
    """The dimensions of a value. An unknown one gets a name that nothing else has; None if the rank is unknown."""
    found = dims(v)
    if found is None or v is None:
        return None
    return [size_of(f"?{v.name}.{i}" if d is None else d) for i, d in enumerate(found)]


def evaluate(v: ir.Value | None) -> list[Size] | None:
    """The elements of an integer scalar or vector, or None when they cannot be told."""
    if v is None or v.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    tensor = constant(v)
    if tensor is not None:
        return [Size(int(n)) for n in tensor.numpy().ravel()] if tensor.size <= _SMALL else None
    node = v.producer()
    if node is None or node.domain:
        return None
    how = _EVALUATORS.get(node.op_type)
    return None if how is None else how(node)


def _shape(node: ir.Node) -> list[Size] | None:
    found = sizes(node.inputs[0])
    return None if found is None else found[attribute(node, "start") or 0 : attribute(node, "end")]


def _same(node: ir.Node) -> list[Size] | None:
    return evaluate(node.inputs[0])


def _concat(node: ir.Node) -> list[Size] | None:
    parts = [evaluate(v) for v in node.inputs]
    if any(p is None for p in parts):
        return None
    return [size for part in parts if part is not None for size in part]


def _gather(node: ir.Node) -> list[Size] | None:
    data, index = evaluate(node.inputs[0]), _ints(node.inputs[1])
    if data is None or index is None or not all(-len(data) <= i < len(data) for i in index):
        return None
    return [data[i] for i in index]


def _slice(node: ir.Node) -> list[Size] | None:
    data = evaluate(node.inputs[0])
    bounds = [_ints(v) for v in node.inputs[1:3]]
    step = _ints(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if data is None or any(b is None or len(b) != 1 for b in [*bounds, step]):
        return None
    start, end, stride = (b[0] for b in [*bounds, step] if b is not None)
    return data[start:end:stride]


def _mul(node: ir.Node) -> list[Size] | None:
    a, b = (evaluate(v) for v in node.inputs)
    if a is None or b is None or not (len(a) == len(b) or 1 in (len(a), len(b))):
        return None
    length = max(len(a), len(b))
    return [x * y for x, y in zip(a * (length // len(a)), b * (length // len(b)), strict=True)]


def _neg(node: ir.Node) -> list[Size] | None:
    found = evaluate(node.inputs[0])
    return None if found is None else [Size(-1) * x for x in found]


def _div(node: ir.Node) -> list[Size] | None:
    a, b = (evaluate(v) for v in node.inputs)
    if a is None or b is None or len(a) != 1 or len(b) != 1:
        return None
    if a[0].known is not None and b[0].known:
        return [Size(int(a[0].factor / b[0].factor))]  # integers are cut towards zero
    quotient = a[0] // b[0]
    return None if quotient is None else [quotient]


def _add(node: ir.Node) -> list[Size] | None:
    a, b = (evaluate(v) for v in node.inputs)
    if a is None or b is None or len(a) != 1 or len(b) != 1:
        return None
    return [total([a[0], b[0]])]


def _constant_of_shape(node: ir.Node) -> list[Size] | None:
    length, value = _ints(node.inputs[0]), node.attributes.get("value")
    if length is None or len(length) != 1 or length[0] > _SMALL:
        return None
    return [Size(0 if value is None else int(value.as_tensor().numpy().item()))] * length[0]


def _where(node: ir.Node) -> list[Size] | None:
    """Exporters write ``Where(Equal(shape, -1), ones, shape)`` before an Expand."""
    chosen, yes, no = _equal(node.inputs[0]), evaluate(node.inputs[1]), evaluate(node.inputs[2])
    if chosen is None or yes is None or no is None or not len(chosen) == len(yes) == len(no):
        return None
    return [a if c else b for c, a, b in zip(chosen, yes, no, strict=True)]


def _equal(v: ir.Value | None) -> list[bool] | None:
    """What an Equal of two shapes gives, where that can be told: a named dimension is never negative."""
    node = v.producer() if v is not None else None
    if node is None or node.op_type != "Equal" or node.domain:
        return None
    a, b = (evaluate(i) for i in node.inputs)
    if a is None or b is None or len(a) != len(b):
        return None
    pairs = list(zip(a, b, strict=True))
    told = all(
        x == y or (x.known is not None and y.known is not None) or _negative(x) or _negative(y) for x, y in pairs
    )
    return [x == y for x, y in pairs] if told else None


def _negative(size: Size) -> bool:
    return size.known is not None and size.known < 0


def _reduce_prod(node: ir.Node) -> list[Size] | None:
    data = evaluate(node.inputs[0])
    return None if data is None else [product(data)]


_EVALUATORS = {
    "Shape": _shape,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Mul": _mul,
    "Neg": _neg,
    "Div": _div,
    "Add": _add,
    "Where": _where,
    "ConstantOfShape": _constant_of_shape,
    "ReduceProd": _reduce_prod,
    **dict.fromkeys(("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"), _same),
}


def _ints(v: ir.Value | None) -> list[int] | None:
    found = evaluate(v)
    if found is None or any(s.known is None for s in found):
        return None
    return [s.factor for s in found]


def reshaped(node: ir.Node) -> list[Size] | None:
    """The sizes that a Reshape gives, its zeros and its -1 resolved."""
    source, target = sizes(node.inputs[0]), evaluate(node.inputs[1])
    if source is None or target is None:
        return None
    if not attribute(node, "allowzero"):
        if any(t.known == 0 and i >= len(source) for i, t in enumerate(target)):
            return None
        target = [source[i] if t.known == 0 else t for i, t in enumerate(target)]
    if all(t.known != -1 for t in target):
        return target
    rest = product(source) // product([t for t in target if t.known != -1])
    return None if rest is None else [rest if t.known == -1 else t for t in target]
