"""Canonicalize: one spelling per idea, so that every later rule has one thing to look for."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.passes.canonicalize import axes
from onnxsmith.passes.canonicalize.known import fix
from onnxsmith.passes.canonicalize.opset import convert, share_imports
from onnxsmith.passes.canonicalize.outputs import forget
from onnxsmith.passes.canonicalize.tidy import prune, sweep, tidy
from onnxsmith.passes.canonicalize.ties import share
from onnxsmith.passes.canonicalize.unify import unify
from onnxsmith.passes.canonicalize.views import shorten
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.symbolic import follow, infer

__all__ = ["canonicalize", "convert", "follow", "infer", "prune", "share", "shorten", "sweep", "tidy", "unify"]


def canonicalize(model: ir.Model) -> ir.Model:
    """Inline functions, raise the opset, infer shapes, fold constants, share weights, shorten views, name dimensions.

    Returns the canonical model; the given one must not be used any more. Raises BadInput as :func:`convert` does.
    """
    if model.functions:
        model = common.InlinePass()(model).model
    model = convert(model)
    share_imports(model)
    name_nodes(model)
    if model.ir_version < 4:  # every initializer had to be an input then, and is a constant all the same
        common.RemoveInitializersFromInputsPass()(model)
    tidy(model)
    forget(model)
    infer(model)
    fix(model)
    tidy(model)
    if share(model):
        sweep(model)
    if shorten(model):
        sweep(model)
    infer(model)
    if unify(model):  # with one name for what had two, more shapes can be told
        infer(model)
    if fix(model):  # once more: views hide shapes
        tidy(model)
    axes.number(model)
    return model
