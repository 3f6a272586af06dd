"""What became of the scales of activations that products read in 8 bits, told from the graph."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import constant

_FIXED, _SPLIT, _BY_ROW, _AS_IT_COMES = "fixed", "fixed with channels added", "for each row", "from each input"
_ALONE = {"DynamicQuantizeLinear": _AS_IT_COMES, "Concat": _SPLIT}  # what tells by itself


def scales_told(model: ir.Model) -> list[Remark]:
    """How many of the activations have which kind of scale; nothing where no product is in integers."""
    read = {n.inputs[0] for n in model.graph if n.op_type == "MatMulIntegerToFloat"}
    kinds = Counter(_kind(codes.producer()) for codes in read if codes is not None)
    counts = ", ".join(f"{kind} ({kinds[kind]})" for kind in (_FIXED, _SPLIT, _BY_ROW, _AS_IT_COMES) if kinds[kind])
    return [Remark("analysis", "int8-scales", "", reason=f"activations have scales {counts}")] if counts else []


def _kind(rounding: ir.Node | None) -> str | None:
    """Of the node that gives the codes; None for codes of the model's own."""
    op_type = rounding.op_type if rounding is not None else None
    if op_type in _ALONE:
        return _ALONE[op_type]
    if rounding is None or op_type != "QuantizeLinear":
        return None
    divided = rounding.inputs[0].producer() if rounding.inputs[0] is not None else None
    is_by_row = divided is not None and divided.op_type == "Div" and constant(divided.inputs[1]) is None
    return _BY_ROW if is_by_row else _FIXED
