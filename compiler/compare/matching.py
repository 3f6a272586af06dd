"""Matching two graphs of which one is a rewrite of the other, where nothing was recorded.

Rewriters mostly keep the names of the values at the ends of what they replace. Between values that both graphs have,
the nodes of one stand for the nodes of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.bodies import reads
from onnxsmith.runtime.parity import rms

_ALIKE = 1e-5  # relative RMS difference of two float32 values that are one
Stops = Callable[[ir.Value], bool]


def matched(
    original: ir.Model, variant: ir.Model, kept: Collection[str], twins: Mapping[str, str]
) -> dict[str, list[str]]:
    """For every node of the variant that is not ``kept``, the names of the original nodes that it stands for.

    ``twins`` are values of the variant that are values of the original under another name.
    """
    theirs = {str(v.name): v for n in original.graph for v in n.outputs if v.name}
    theirs |= {str(v.name): v for v in original.graph.inputs}
    known = {
        str(v.name): theirs[name] for v in _values(variant) if (name := twins.get(str(v.name), str(v.name))) in theirs
    }
    found: dict[str, list[str]] = {}
    for node in variant.graph:
        ends = [v for v in node.outputs if v.name in known]
        if not ends or node.name in kept:
            continue
        ours, border = _between(ends, lambda v: v.name in known)
        stops = {known[str(v.name)] for v in border if v.name in known}
        old, _ = _between([known[str(v.name)] for v in ends], stops.__contains__)
        for one in ours:
            if one.name not in kept:
                found.setdefault(str(one.name), []).extend(str(n.name) for n in old if n.name not in kept)
    return {name: list(dict.fromkeys(names)) for name, names in found.items()}


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from (v for v in node.outputs if v.name)


def _between(ends: list[ir.Value], stops: Stops) -> tuple[dict[ir.Node, None], dict[ir.Value, None]]:
    """The nodes that compute ``ends``, back to values at which it ``stops``, and those values."""
    nodes: dict[ir.Node, None] = {}
    border: dict[ir.Value, None] = {}
    stack = [n for v in ends if (n := v.producer()) is not None]
    while stack:
        node = stack.pop()
        if node in nodes:
            continue
        nodes[node] = None
        for v in reads(node):
            producer = v.producer()
            if stops(v) or producer is None:
                border[v] = None
            else:
                stack.append(producer)
    return nodes, border


def same_values(ours: Mapping[str, NDArray[np.generic]], theirs: Mapping[str, NDArray[np.generic]]) -> dict[str, str]:
    """Values of the variant without a namesake that hold the shape and numbers of one value of the original."""
    by_shape: dict[tuple[object, ...], list[str]] = {}
    for name, value in theirs.items():
        by_shape.setdefault((value.shape, value.dtype), []).append(name)
    found: dict[str, str] = {}
    for name, value in ours.items():
        if name in theirs or value.size < 2:
            continue
        close = (n for n in by_shape.get((value.shape, value.dtype), ()) if _same(value, theirs[n]))
        if (twin := next(close, None)) is not None:
            found[name] = twin
    return found


def _same(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    if not np.issubdtype(a.dtype, np.floating):
        return bool(np.array_equal(a, b))
    if float(np.ptp(b.astype(np.float64))) == 0:
        return False  # constants are alike by chance
    with np.errstate(invalid="ignore"):
        apart = a.astype(np.float64) - b.astype(np.float64)
    return bool(np.isfinite(apart).all()) and rms(apart) <= _ALIKE * rms(b)
