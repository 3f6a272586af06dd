"""Elementwise operators as a function of one value: cut out of the graph, and evaluated on numbers.

A spelling is proposed by its shape (elementwise operators and constants down to one value) and told by what it
computes, so that the order of its factors, where its constants stand, and what is computed twice do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.engine.values import constant, dims, readable, scalar, widens

Array = NDArray[np.float64]
_LARGEST = 1 << 16  # elements of a vector of constants: a bias, never a weight
_MOST = 32  # nodes: GELU by tanh has eight
_SAMPLE = 8  # of a vector's numbers, for a first look
_GRID = np.linspace(-6, 6, 12_001)


@cache
def _erf_on_grid() -> Array:
    return np.array([math.erf(x) for x in _GRID])


def erf(x: Array) -> Array:
    """To 2e-7, far below what the rounding of constants does to a curve; numpy itself has none."""
    return np.interp(x, _GRID, _erf_on_grid())


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Neg": np.negative,
    "Tanh": np.tanh,
    "Erf": erf,
}


@dataclass(frozen=True)
class Cone:
    """The nodes from ``source`` (outside) to the last one (``root``), in order, each with all that it reads."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]

    def evaluate(self, x: Array, *, sample: bool = False) -> dict[ir.Value, Array]:
        """Every value of the cone in float64, when the source is ``x`` [N, 1]; [N, K] behind constants of [K].

        A ``sample`` has a few of the K columns only, always the same ones.
        """
        found = {self.source: x}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                inputs = [found[v] if v in found else _numbers(v, sample) for v in node.inputs if v is not None]
                found[node.outputs[0]] = _FUNCTIONS[node.op_type](*inputs)
        return found

    def below(self, op_type: str) -> set[ir.Node]:
        """The operators of that type, and the nodes that read them."""
        found: set[ir.Node] = set()
        for node in self.nodes:
            if node.op_type == op_type or any(v is not None and v.producer() in found for v in node.inputs):
                found.add(node)
        return found


def cones(root: ir.Node, containing: str) -> Iterator[Cone]:
    """The cones of a root on one value each, nearest first, that hold an operator of that type."""
    order = _order(root)
    if not any(node.op_type == containing for node in order):
        return
    inside: list[ir.Node] = []
    for node in order:  # users come before what they use
        inside.append(node)
        reads = dict.fromkeys(v for n in inside for v in n.inputs if v is not None and not _is_constant(v))
        sources = [v for v in reads if v.producer() not in inside]
        holds = any(n.op_type == containing for n in inside)
        if len(sources) == 1 and holds and all(_same_shape(n, sources[0]) for n in inside):
            yield Cone(sources[0], tuple(reversed(inside)))


def _order(root: ir.Node) -> list[ir.Node]:
    """The elementwise nodes above a root, the nearest ones, each before those that it reads."""
    seen, frontier = {root: None}, [root]
    while frontier and len(seen) < _MOST:
        above = [p for n in frontier for v in n.inputs if v is not None and _elementwise(p := v.producer())]
        frontier = [p for p in dict.fromkeys(above) if p is not None and p not in seen]
        seen.update(dict.fromkeys(frontier))
    waiting = {n: sum(user in seen for user, _ in n.outputs[0].uses()) for n in seen}
    ready, order = [root], []
    while ready:
        order.append(node := ready.pop(0))
        for v in node.inputs:
            producer = v.producer() if v is not None else None
            if producer in seen and producer is not None:
                waiting[producer] -= 1
                ready += [producer] if waiting[producer] == 0 else []
    return order


def _elementwise(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in _FUNCTIONS and not node.domain


def _is_constant(v: ir.Value) -> bool:
    return constant(v) is not None


def _same_shape(node: ir.Node, source: ir.Value) -> bool:
    """The constants of the node are scalars, or vectors over the source's last dimension: none widens the result."""
    return all(_fits(v, node, source) for v in node.inputs if v is not None and _is_constant(v))


def _fits(v: ir.Value, node: ir.Node, source: ir.Value) -> bool:
    tensor, width = constant(v), (dims(source) or [None])[-1]
    if tensor is None or not readable(tensor):
        return False
    if tensor.size == 1:
        return not widens(v, node)
    return tensor.shape.rank() == 1 and tensor.size == width and tensor.size <= _LARGEST


def _numbers(v: ir.Value, sample: bool) -> Array:
    """A scalar as a number, whatever its rank; a vector, or some of it."""
    tensor = constant(v)
    assert tensor is not None, "a cone has one source"
    number = scalar(v)
    if number is not None:
        return np.asarray(number, np.float64)
    step = max(tensor.size // _SAMPLE, 1) if sample else 1
    return tensor.numpy()[::step].astype(np.float64)
