"""Cleaning up: constants folded and shared, twins merged, dead ends removed."""

from __future__ import annotations

import logging

import onnx_ir as ir
import onnx_ir.passes.common as common

_FOLD_INPUT_BYTES = 64 * 1024  # weights are never folded: that would copy them into memory
_FOLD_OUTPUT_BYTES = 64 * 1024


def tidy(model: ir.Model) -> None:
    """Fold small constants, merge equal nodes and small initializers, and drop what nothing uses; in place."""
    from onnxscript.optimizer import fold_constants

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    level = logging.getLogger("onnxscript").level
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    fold_constants(
        model, onnx_shape_inference=False, input_size_limit=_FOLD_INPUT_BYTES, output_size_limit=_FOLD_OUTPUT_BYTES
    )
    logging.getLogger("onnxscript").setLevel(level)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    sweep(model)


def sweep(model: ir.Model) -> None:
    """Merge equal nodes and small equal initializers, drop identities and unused nodes; in place."""
    common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.IdentityEliminationPass()(model)
    prune(model)


def prune(model: ir.Model) -> None:
    """Drop nodes, initializers and opset imports that nothing uses; in place."""
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass(process_functions=True)(model)
