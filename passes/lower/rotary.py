"""Rotary positions inside the attention kernel: queries and keys as they were before they were turned.

What turns them is proposed by its shape (views, sums and products between a projection and the attention) and told by
what it computes: evaluated on a basis it gives the tables, on random numbers it must agree with them. Source: Su et al.
2021, arXiv:2104.09864; ONNX Runtime's contrib operator GroupQueryAttention.

Shapes: B batch, S new tokens, H heads, D head size, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.cache.probe import evaluator
from onnxsmith.passes.cache.record import Cache
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import dims

Array = NDArray[Any]
_HEAD_MULTIPLE = 16  # of the head sizes that the kernel turns
_PIECE = 1024  # positions that are evaluated at a time
_CLOSE = 1e-6  # RMS error over RMS, of float32 arithmetic in another order
_TURNING = frozenset(
    {"Add", "Cast", "Concat", "Identity", "Mul", "Neg", "Reshape", "RotaryEmbedding", "Slice", "Split", "Squeeze"}
    | {"Sub", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True, eq=False)
class Tables:
    """``cosines`` and ``sines`` [P, D/2]; ``interleaved`` pairs neighbours, else a pair is D/2 apart."""

    cosines: Array
    sines: Array
    interleaved: bool

    def turn(self, x: Array, places: Array) -> Array:
        """x [B, H, S, D] at places [B, S]"""
        cosines, sines = (table[places][:, None] for table in (self.cosines, self.sines))  # [B, 1, S, D/2]
        first, second = self._pairs(x)
        a, b = first * cosines - second * sines, second * cosines + first * sines
        return np.stack((a, b), -1).reshape(x.shape) if self.interleaved else np.concatenate((a, b), -1)

    @property
    def turn_nothing(self) -> bool:
        """Those of views alone."""
        return not self.sines.any() and bool((self.cosines == 1).all())

    def equals(self, other: Tables) -> bool:
        pairs = ((self.cosines, other.cosines), (self.sines, other.sines))
        return self.interleaved == other.interleaved and all(np.array_equal(a, b) for a, b in pairs)

    def _pairs(self, x: Array) -> tuple[Array, Array]:
        return (x[..., ::2], x[..., 1::2]) if self.interleaved else tuple(np.split(x, 2, -1))  # type: ignore[return-value]


@dataclass
class Turnings:
    """What turns queries and keys in a graph; layers that read the same angles have the same tables."""

    graph: ir.Graph
    cache: Cache
    _tables: dict[frozenset[ir.Value], Tables] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """``_order`` gives each node its place, ``_hidden`` are the values that depend on ids."""
        self._order = {node: i for i, node in enumerate(self.graph)}
        self._given = {str(v.name): v for v in self.graph.inputs}
        self._hidden = {self._given[self.cache.ids]}
        for node in self.graph:
            if node.op_type != "Shape" and any(v in self._hidden for v in node.inputs):
                self._hidden.update(node.outputs)

    def before(self, query: ir.Value, keys: ir.Value) -> tuple[ir.Value, ir.Value, Tables] | None:
        """Queries and keys [B, H, S, D] before one rotation turns both, and its tables; None where none does."""
        size, positions = self.cache.head_size, self.cache.max_positions
        if self.cache.positions is None or positions is None or size % _HEAD_MULTIPLE:
            return None
        found = [self._turned(v) for v in (query, keys)]
        if found[0] is None or found[1] is None or found[0][1] is not found[1][1] or found[0][1].turn_nothing:
            return None
        return found[0][0], found[1][0], found[0][1]

    def _turned(self, v: ir.Value) -> tuple[ir.Value, Tables] | None:
        region = self._region(v)
        if region is None:
            return None
        source, nodes, angles = region
        turning = _Turning(evaluator(nodes, self._inputs(source), v, self.graph.opset_imports), source, v, self.cache)
        try:
            if angles not in self._tables:
                self._tables[angles] = self._known(turning.tables())
            tables = self._tables[angles]
            return (source, tables) if turning.agrees(tables) else None
        except Refused:
            return None

    def _known(self, tables: Tables) -> Tables:
        """Equal ones that were found before, if there are any."""
        return next((known for known in self._tables.values() if known.equals(tables)), tables)

    def _inputs(self, source: ir.Value) -> list[ir.Value]:
        names = (self.cache.ids, self.cache.mask, self.cache.positions)
        return [source, *(self._given[name] for name in names if name is not None)]

    def _region(self, v: ir.Value) -> tuple[ir.Value, list[ir.Node], frozenset[ir.Value]] | None:
        """The value [B, S, H*D] (or of rank 4) that is turned, the nodes that do it, and the angles that they read."""
        inside: set[ir.Node] = set()
        sources: set[ir.Value] = set()
        stack = [v]
        while stack:
            x = stack.pop()
            node = x.producer()
            if node is None or node.domain or node.op_type not in _TURNING or (len(dims(x) or ()) == 3 and x is not v):
                sources.add(x)
            elif node not in inside:
                inside.add(node)
                stack += [i for i in node.inputs if i is not None and i in self._hidden]
        if len(sources) != 1 or v in sources:
            return None
        angles = frozenset(i for node in inside for i in node.inputs if i is not None and self._moves(i))
        nodes = self._with_cones(inside)
        return None if nodes is None else (sources.pop(), nodes, angles)

    def _moves(self, v: ir.Value) -> bool:
        return v not in self._hidden and v.producer() is not None

    def _with_cones(self, inside: set[ir.Node]) -> list[ir.Node] | None:
        """The nodes and what they read besides the source, in order; None where that depends on ids."""
        found = set(inside)
        stack = [v for node in inside for v in node.inputs if v is not None and self._moves(v)]
        while stack:
            node = stack.pop().producer()
            if node is None or node in found:
                continue
            if any(v in self._hidden for v in node.outputs):
                return None
            found.add(node)
            stack += [v for v in node.inputs if v is not None]
        return sorted(found, key=self._order.__getitem__)


@dataclass(frozen=True)
class _Turning:
    """What turns one value, as a function of that value and of positions."""

    evaluator: ReferenceEvaluator
    source: ir.Value
    result: ir.Value
    cache: Cache

    def __call__(self, x: Array, places: Array) -> Array:
        """x [B, H, S, D] at places [B, S] -> [B, H, S, D]"""
        feeds = {
            str(self.source.name): _laid_out(x, self.source),
            self.cache.ids: np.zeros_like(places),
            self.cache.mask: np.ones_like(places),
            str(self.cache.positions): places,
        }
        try:
            (found,) = self.evaluator.run(None, feeds)
        except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
            raise Refused(f"what turns {self.result.name} cannot be evaluated") from e
        turned = np.asarray(found)
        turned = turned if turned.ndim == 4 else turned.reshape(*turned.shape[:2], -1, x.shape[-1]).swapaxes(1, 2)
        if turned.shape != x.shape:
            raise Refused(f"{self.source.name} holds more than what is turned")
        return turned

    def tables(self) -> Tables:
        """Read off a basis: the first of each pair turns into its cosine and its sine."""
        size, total = self.cache.head_size, self.cache.max_positions or 0
        for interleaved in (False, True):
            first = np.arange(size) % 2 == 0 if interleaved else np.arange(size) < size // 2
            basis = first.astype(np.float32)
            pieces = [self._piece(basis, np.arange(i, min(i + _PIECE, total))) for i in range(0, total, _PIECE)]
            turned = np.concatenate(pieces)
            found = Tables(turned[:, first], turned[:, ~first], interleaved)
            if self.agrees(found):
                return found
        raise Refused(f"{self.result.name} is not turned by rotary positions")

    def _piece(self, basis: Array, places: Array) -> Array:
        heads = _heads(self.source, self.cache.head_size)
        x = np.broadcast_to(basis, (1, heads, len(places), len(basis)))
        return np.asarray(self(x, places[None])[0, 0])

    def agrees(self, tables: Tables) -> bool:
        """On random numbers, for several rows and heads."""
        rng = np.random.default_rng(0)
        places = rng.integers(0, len(tables.cosines), (2, 5))
        x = rng.standard_normal((2, _heads(self.source, self.cache.head_size), 5, self.cache.head_size))
        x = x.astype(np.float32)
        wrong = self(x, places) - tables.turn(x, places)
        return bool(np.sqrt(np.mean(np.square(wrong))) <= _CLOSE * np.sqrt(np.mean(np.square(x))))


def _heads(v: ir.Value, size: int) -> int:
    """How many heads a value [B, S, H*D], [B, H, S, D] or [B, S, H, D] has."""
    found = dims(v) or []
    numbers = [d for d in found[1:] if isinstance(d, int)]
    if len(found) == 3 and numbers:
        return numbers[-1] // size
    if len(found) != 4 or len(numbers) != 2:
        raise Refused(f"{v.name} has no known heads")
    return numbers[0]


def _laid_out(x: Array, like: ir.Value) -> Array:
    """[B, H, S, D] in the layout of a value [B, S, H*D], [B, H, S, D] or [B, S, H, D]."""
    found = dims(like) or []
    if len(found) == 4 and isinstance(found[1], int):
        return x
    apart = x.swapaxes(1, 2)
    return apart if len(found) == 4 else apart.reshape(*apart.shape[:2], -1)


def constants(op: Builder, tables: Tables) -> tuple[ir.Value, ir.Value]:
    """The tables as the kernel reads them, float32 [P, D/2] each."""
    return op.constant(tables.cosines, "cosines", np.float32), op.constant(tables.sines, "sines", np.float32)
