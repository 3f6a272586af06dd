"""A table that is also the head's weights stands in the file once: the lookup reads the codes of the product.

    GatherBlockQuantized(codes, ids, scales)    codes [V, D]
    ->  GatherBlockQuantized(Reshape(c), ids, s)    c [V, n, bytes] and scales s of MatMulNBits

Both operators block a row of the table along its elements, so their codes are the same bytes where the format is. ONNX
Runtime folds the Reshape when it loads the model. Source: ONNX Runtime's operators MatMulNBits, GatherBlockQuantized.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.canonicalize import prune
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, constant, dims

NAME = "tied-codes"
_LOOKUP, _PRODUCT = (0, 2, 3), (1, 2, 3)  # places of codes, scales and zero points among the inputs
_FORMAT = ("bits", "block_size")


def tied(model: ir.Model) -> list[Remark]:
    """Let each lookup in blocks read the codes of a product that has the same, in place."""
    nodes = [n for n in model.graph if n.op_type in ("GatherBlockQuantized", "MatMulNBits")]
    products = [n for n in nodes if n.op_type == "MatMulNBits"]
    pairs = [(n, p) for n in nodes if n not in products and (p := _twin(n, products)) is not None]
    names = Names(model)
    for lookup, product in pairs:
        _share(lookup, product, names)
    if not pairs:
        return []
    prune(model)
    return [Remark("analysis", NAME, "", reason=f"{len(pairs)} tables share the codes of the head")]


def _twin(lookup: ir.Node, products: list[ir.Node]) -> ir.Node | None:
    alike = (p for p in products if all(attribute(p, name) == attribute(lookup, name) for name in _FORMAT))
    return next((p for p in alike if _same(lookup, p)), None)


def _same(lookup: ir.Node, product: ir.Node) -> bool:
    ours, theirs = _parts(lookup, _LOOKUP), _parts(product, _PRODUCT)
    return len(ours) == len(theirs) and all(_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _equal(a: ir.Value, b: ir.Value) -> bool:
    """Whether both are constants of the same numbers, whatever their shapes."""
    ours, theirs = constant(a), constant(b)
    if ours is None or theirs is None or ours.nbytes != theirs.nbytes:
        return False
    return np.array_equal(ours.numpy().reshape(-1), theirs.numpy().reshape(-1))


def _parts(node: ir.Node, places: tuple[int, ...]) -> list[ir.Value]:
    return [v for i in places if i < len(node.inputs) and (v := node.inputs[i]) is not None]


def _share(lookup: ir.Node, product: ir.Node, names: Names) -> None:
    graph, codes, shared = lookup.graph, lookup.inputs[0], product.inputs[1]
    assert isinstance(graph, ir.Graph) and codes is not None, "a lookup is a node of the model's graph"
    op = Builder()
    flat = op.Reshape(shared, op.constant(dims(codes), "table_shape", np.int64))
    flat.type, flat.shape = codes.type, codes.shape
    stamp(op.nodes, NAME, [lookup])
    names.adopt(graph, op)
    graph.insert_before(lookup, op.nodes)
    lookup.replace_input_with(0, flat)
    for own, other in zip(_LOOKUP[1:], _PRODUCT[1:], strict=True):
        if own < len(lookup.inputs):
            lookup.replace_input_with(own, product.inputs[other])
