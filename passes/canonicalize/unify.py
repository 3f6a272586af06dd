"""Dimensions that an operator forces to be equal, brought to one name.

    scores [B, H, S, total] · values [B, H, past + sequence, D]

Exporters call one length by several names. A product sums over a dimension that both of its factors have, so the graph
runs for no two lengths there, and one name does for both. What broadcasts proves nothing: either of the two may be 1.
Source: ONNX operator specification, MatMul-13, Gemm-13, Concat-13, Attention-23.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnxsmith.passes.engine.values import attribute, dims
from onnxsmith.passes.shapes import Size, product, size_of, sizes, unnamed

_PLUS = " + "


def unify(model: ir.Model) -> bool:
    """Give equal dimensions one name, in place, in the shapes of all values. Returns whether any was renamed.

    Only the main graph proves anything: the body of an If may never run.
    """
    classes: list[set[str]] = []
    for node in model.graph:
        for a, b in _forced(node) if not node.domain else ():
            if _is_name(a) and _is_name(b) and a != b:
                _join(classes, {a.names[0], b.names[0]})
    given = [name for v in model.graph.inputs for d in dims(v) or [] if isinstance(d, str) for name in size_of(d).names]
    names = {old: new for some in classes if _sound(some) for new in [_chosen(some, given)] for old in some - {new}}
    return bool(names) and _rename(model, names)


def _is_name(size: Size) -> bool:
    """One dimension, and one that the model has a name for."""
    return size.factor == 1 and len(size.names) == 1 and not unnamed(size.names[0])


def _join(classes: list[set[str]], pair: set[str]) -> None:
    touched = [some for some in classes if some & pair]
    classes[:] = [some for some in classes if some not in touched] + [pair.union(*touched)]


def _sound(some: set[str]) -> bool:
    """No sum equals one of its own parts: there, an exporter or its user has given one name to two lengths."""
    return not any(part in some for name in some if _PLUS in name for part in name.split(_PLUS))


def _chosen(some: set[str], given: Sequence[str]) -> str:
    """What an input calls it, so that it can be read there; a plain name rather than a sum."""
    return min(some, key=lambda name: (name not in given, _PLUS in name, name not in given or given.index(name), name))


def _rename(model: ir.Model, names: dict[str, str]) -> bool:
    graphs = list(model.graphs())
    values = [v for graph in graphs for v in (*graph.inputs, *(v for node in graph for v in node.outputs))]
    for v in values:
        found = dims(v)
        if found is not None and (new := [_renamed(d, names) for d in found]) != found:
            v.shape = ir.Shape(new)
    return True


def _renamed(dim: int | str | None, names: dict[str, str]) -> int | str | None:
    if not isinstance(dim, str):
        return dim
    size = size_of(dim)
    return Size(size.factor, tuple(sorted(_renamed_name(name, names) for name in size.names))).dim


def _renamed_name(name: str, names: dict[str, str]) -> str:
    if name in names:
        return names[name]
    return _PLUS.join(names.get(part, part) for part in name.split(_PLUS))


def _forced(node: ir.Node) -> Iterator[tuple[Size, Size]]:
    """Sizes that are equal whenever the node runs."""
    given = [sizes(v) for v in node.inputs]
    if any(shape is None for shape in given[:3]):
        return
    shapes = [shape for shape in given if shape is not None]
    match node.op_type:
        case "MatMul" if len(shapes[0]) > 1 and len(shapes[1]) > 1:
            yield shapes[0][-1], shapes[1][-2]
        case "Gemm":
            yield shapes[0][0 if attribute(node, "transA") else 1], shapes[1][1 if attribute(node, "transB") else 0]
        case "Concat":
            axis = attribute(node, "axis") % len(shapes[0])
            for shape in shapes[1:]:
                yield from ((a, b) for i, (a, b) in enumerate(zip(shapes[0], shape, strict=True)) if i != axis)
        case "Attention":
            q, k, v = shapes[:3]
            yield from ((q[0], k[0]), (q[0], v[0]), (k[-2], v[-2]))
        case "Reshape":
            yield from _same_volume(shapes[0], sizes(node.outputs[0]))


def _same_volume(before: Sequence[Size], after: Sequence[Size] | None) -> Iterator[tuple[Size, Size]]:
    """Of a view that holds something: what is left on each side without the common factors, where that is one name."""
    if after is None:
        return
    a, b = product(before), product(after)
    left, right = Counter(a.names) - Counter(b.names), Counter(b.names) - Counter(a.names)
    if a.factor == b.factor and left.total() == right.total() == 1:
        yield Size(1, tuple(left)), Size(1, tuple(right))
