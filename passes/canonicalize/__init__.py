"""Canonicalize: one spelling per idea, so that every later rule has one thing to look for."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.passes.canonicalize.opset import convert
from onnxsmith.passes.canonicalize.tidy import prune, sweep, tidy
from onnxsmith.passes.canonicalize.views import shorten
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.symbolic import infer

__all__ = ["canonicalize", "convert", "infer", "prune", "shorten", "sweep", "tidy"]


def canonicalize(model: ir.Model) -> ir.Model:
    """Inline functions, raise the opset, infer shapes, fold constants and shorten views.

    Returns the canonical model; the given one must not be used any more. Raises BadInput as :func:`convert` does.
    """
    if model.functions:
        model = common.InlinePass()(model).model
    model = convert(model)
    name_nodes(model)
    if model.ir_version < 4:  # every initializer had to be an input then, and is a constant all the same
        common.RemoveInitializersFromInputsPass()(model)
    tidy(model)
    infer(model)
    tidy(model)
    if shorten(model):
        sweep(model)
    infer(model)
    return model
