"""Weights that stand in the file twice are shared: exact copies, and a matrix beside its transpose.

A head that is tied to its embedding table becomes a second matrix [E, V] when an exporter folds the transpose away,
and a layer that several places use may be stored once for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.engine.values import constant, readable

Array = NDArray[Any]
_SMALLEST = 64 * 1024  # bytes: what constant folding leaves alone, lest it undo the transpose
_CORNER = 8
_ROWS = 1024


def share(model: ir.Model) -> bool:
    """Let copies read the first of them, transposed ones through a Transpose; in place. Whether there were any."""
    kept: dict[tuple[object, ...], list[ir.Value]] = {}
    found = False
    for v in list(_weights(model)):
        twins = kept.setdefault(_fingerprint(v), [])
        if any(_replaced(model, v, twin) for twin in twins):
            found = True
        else:
            twins.append(v)
    return found


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    """The larger weights, those first that are looked up by rows: a Gather cannot read a transposed table."""
    candidates = [v for v in model.graph.initializers.values() if (t := constant(v)) is not None and _large(t)]
    yield from sorted(candidates, key=lambda v: not any(user.op_type == "Gather" for user, _ in v.uses()))


def _large(tensor: ir.TensorProtocol) -> bool:
    return tensor.nbytes >= _SMALLEST and tensor.dtype != ir.DataType.STRING and readable(tensor)


def _array(v: ir.Value) -> Array:
    tensor = constant(v)
    assert tensor is not None, "only constants are compared"
    return tensor.numpy()


def _fingerprint(v: ir.Value) -> tuple[object, ...]:
    """Equal for twins, and cheap: type, size and one corner, the same for a matrix and its transpose."""
    array = _array(v)
    if array.ndim != 2:
        return v.dtype, array.shape, array[(slice(_CORNER),) * array.ndim].tobytes()
    corner = array[:_CORNER, :_CORNER]
    return v.dtype, tuple(sorted(array.shape)), min(corner.tobytes(), corner.T.tobytes())


def _replaced(model: ir.Model, v: ir.Value, twin: ir.Value) -> bool:
    ours, theirs = _array(v), _array(twin)
    if v.is_graph_output():
        return False  # its name has to stay
    if _same(ours, theirs):
        source = twin
    elif ours.ndim == 2 and _same(ours, theirs.T):
        source = _transposed(model, v, twin)
    else:
        return False
    ir.convenience.replace_all_uses_with(v, source, replace_graph_outputs=True)
    model.graph.initializers.pop(str(v.name))
    return True


def _same(a: Array, b: Array) -> bool:
    """Compared in pieces, for a weight's worth of flags would be a lot of memory."""
    return a.shape == b.shape and all(
        np.array_equal(a[i : i + _ROWS], b[i : i + _ROWS]) for i in range(0, len(a), _ROWS)
    )


def _transposed(model: ir.Model, v: ir.Value, twin: ir.Value) -> ir.Value:
    node = ir.node("Transpose", [twin], {"perm": [1, 0]}, name=f"{v.name}_from_twin")
    turned = node.outputs[0]
    turned.name, turned.shape, turned.type = f"{v.name}_shared", v.shape, v.type
    model.graph.insert_before(model.graph[0], node)
    return turned
