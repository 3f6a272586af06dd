"""One number for each axis: -1 for the last one, counted from the front for every other."""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.engine.values import rank

_OF_INPUT = frozenset({"Softmax", "LogSoftmax", "Concat", "Split", "Gather", "ArgMax", "ArgMin", "GatherElements"})


def number(model: ir.Model) -> None:
    """Renumber the ``axis`` attributes of operators whose rank is known; in place."""
    for node in model.graph.all_nodes():
        given = node.attributes.get("axis")
        found = rank(node.inputs[0]) if node.op_type in _OF_INPUT and not node.domain and node.inputs else None
        if given is None or given.is_ref() or not found:
            continue
        axis = given.as_int() % found
        node.attributes["axis"] = ir.AttrInt64("axis", -1 if axis == found - 1 and found > 1 else axis)
