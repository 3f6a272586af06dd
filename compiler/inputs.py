"""Adversarial inputs: what breaks rewrites in practice, made from what the graph itself says of its inputs.

An integer input that picks rows of a table is a token, segment or position id; any other integer or boolean input of
two dimensions is a mask. Nothing is guessed from names, except that a dimension "a + b" is the sum of others: one of
those that only floating-point inputs have is the length of a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.engine.values import constant, dims

_PLUS = " + "
_THROUGH = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Clip", "Max", "Min"})


@dataclass(frozen=True)
class Case:
    """One set of feeds. ``rows`` [B] marks the batch rows that have at least one allowed key.

    ``positions`` says it of single positions, for the values that have some: flags [B, 1, .., L] over the leading
    dimensions of the value.
    """

    name: str
    feeds: dict[str, NDArray[Any]]
    rows: NDArray[np.bool_]
    positions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def counted(self, name: str) -> NDArray[np.bool_]:
        """What of the named value counts."""
        return self.positions.get(name, self.rows)


@dataclass(frozen=True)
class _Plan:
    name: str
    batch: int
    length: int
    past: int  # tokens in the cache, where the model has one
    mask: str  # full, right, left, one, blocked
    flag: bool = True  # what a boolean of one element says: which branch is taken


PLANS = (
    _Plan("one token", 1, 1, 6, "full"),
    _Plan("no padding", 2, 7, 0, "full", False),
    _Plan("right padding", 3, 16, 3, "right"),
    _Plan("left padding", 3, 16, 5, "left", False),
    _Plan("one token allowed", 2, 9, 1, "one"),
    _Plan("a blocked row", 3, 8, 2, "blocked"),
    _Plan("long", 1, 64, 0, "right"),
)


def cases(model: ir.Model, bounds: Mapping[str, int] | None = None, seed: int = 0) -> Iterator[Case]:
    """The adversarial inputs of a model; ``bounds`` limits named dimensions, as the artifact records them."""
    rows = {str(v.name): table_rows(v) for v in model.graph.inputs}
    for plan in PLANS:
        yield _case(plan, model, rows, _sizes(plan, model, bounds or {}), np.random.default_rng(seed))


def table_rows(v: ir.Value) -> int | None:
    """How many rows the constant table has that this input picks from, or None when it picks from none."""
    seen, stack, found = set(), [v], []
    while stack:
        value = stack.pop()
        for node, i in value.uses():
            if node in seen:
                continue
            if node.op_type == "Gather" and i == 1 and (tensor := constant(node.inputs[0])) is not None:
                found.append(tensor.numpy().shape[node.attributes.get_int("axis", 0)])
            elif node.op_type in _THROUGH and i == 0:
                seen.add(node)
                stack.extend(node.outputs)
    return min(found, default=None)


def made_up(shape: Sequence[int], dtype: np.dtype[Any], rows: int | None, rng: np.random.Generator) -> NDArray[Any]:
    """Ids that a table of so many rows has, normal floats, and 1 in a flag, a length or a step: most models take it."""
    if rows is not None:
        return rng.integers(0, rows, shape).astype(dtype)
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return rng.standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


def _case(
    plan: _Plan, model: ir.Model, rows: Mapping[str, int | None], sizes: Mapping[str, int], rng: np.random.Generator
) -> Case:
    feeds: dict[str, NDArray[Any]] = {}
    allowed: NDArray[np.bool_] = np.ones(plan.batch, dtype=bool)
    for v in model.graph.inputs:
        if v.is_initializer():
            continue
        name, shape = str(v.name), _shape(v, plan, sizes)
        table = rows[name]
        if v.dtype is not None and v.dtype.is_floating_point():
            feeds[name] = rng.standard_normal(shape).astype(v.dtype.numpy())
        elif table is not None:
            feeds[name] = _ids(shape, table, rng).astype(_numpy(v))
        elif v.dtype == ir.DataType.BOOL and np.prod(shape) == 1 and len(shape) < 2:
            feeds[name] = np.full(shape, plan.flag)
        else:
            mask = _mask(plan.mask, shape)
            feeds[name] = mask.astype(_numpy(v))
            if mask.ndim > 1 and len(mask) == plan.batch:
                allowed = np.any(mask.reshape(len(mask), -1), axis=1)
    return Case(plan.name, feeds, allowed)


def _numpy(v: ir.Value) -> Any:
    return v.dtype.numpy() if v.dtype is not None else np.int64


def _sizes(plan: _Plan, model: ir.Model, bounds: Mapping[str, int]) -> dict[str, int]:
    """How large each named dimension is that is not the batch's."""
    found: dict[str, bool] = {}  # whether floating-point inputs alone have it
    for v in model.graph.inputs:
        floats = v.dtype is not None and v.dtype.is_floating_point()
        for dim in (str(dim) for dim in (dims(v) or [])[1:] if not isinstance(dim, int)):
            found[dim] = found.get(dim, True) and floats
    sums = {name: name.split(_PLUS) for name in found if _PLUS in name}
    cached = {part for parts in sums.values() for part in parts if found.get(part)}
    sizes = {n: min(plan.length, bounds.get(n, plan.length)) for n in found if n not in sums and n not in cached}
    sizes |= {part: int(part) for parts in sums.values() for part in parts if part.isdigit()}
    for name, parts in sums.items():
        rest = sum(sizes.get(part, 0) for part in parts)
        for part in cached.intersection(parts):
            sizes[part] = min(plan.past, bounds.get(part, plan.past), max(bounds.get(name, rest + plan.past) - rest, 0))
        sizes[name] = sum(sizes.get(part, plan.length) for part in parts)
    return sizes


def _shape(v: ir.Value, plan: _Plan, sizes: Mapping[str, int]) -> tuple[int, ...]:
    found = enumerate(dims(v) or [])
    return tuple(d if isinstance(d, int) else plan.batch if axis == 0 else sizes[str(d)] for axis, d in found)


def _ids(shape: tuple[int, ...], table: int, rng: np.random.Generator) -> NDArray[np.int64]:
    ids = rng.integers(0, table, shape)
    if ids.size > 1:
        ids.flat[0], ids.flat[-1] = 0, table - 1  # the edges of the table
    return ids


def _mask(kind: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.ones(shape, dtype=bool)
    if mask.ndim < 2 or kind == "full":
        return mask
    length = shape[-1]
    for i in range(shape[0]):
        keep = max(1, length - i * (length // 3) - (shape[0] == 1) * (length // 4))
        if kind == "right":
            mask[i, ..., keep:] = False
        elif kind == "left":
            mask[i, ..., : length - keep] = False
        elif kind == "one":
            mask[i, ...] = np.arange(length) == i
        elif kind == "blocked":
            mask[i, ...] = i != 1
    return mask
