"""Cleaning up: constants folded and shared, twins merged, dead ends removed."""

from __future__ import annotations

import logging

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.passes.canonicalize import branches
from onnxsmith.passes.engine.absent import set_aside
from onnxsmith.passes.engine.match import COMMUTATIVE

_FOLD_INPUT_BYTES = 64 * 1024  # weights are never folded: that would copy them into memory
_FOLD_OUTPUT_BYTES = 64 * 1024


def tidy(model: ir.Model) -> None:
    """Fold small constants, take branches that they decide, merge what is equal, drop what nothing uses; in place."""
    _fold(model)
    while branches.settle(model):  # what stood in a branch may fold with what stands around it
        _fold(model)
    sweep(model)


def _fold(model: ir.Model) -> None:
    from onnxscript.optimizer import fold_constants

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    level = logging.getLogger("onnxscript").level
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with branches.hidden(model):
        fold_constants(
            model, onnx_shape_inference=False, input_size_limit=_FOLD_INPUT_BYTES, output_size_limit=_FOLD_OUTPUT_BYTES
        )
    logging.getLogger("onnxscript").setLevel(level)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def sweep(model: ir.Model) -> None:
    """Merge equal nodes and small equal initializers, drop identities and unused nodes; in place."""
    with set_aside(model):
        common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.CommonSubexpressionEliminationPass()(model)
    for graph in model.graphs():
        _merge_commuted(graph)
    _drop_identities(model)
    prune(model)


def _merge_commuted(graph: ir.Graph) -> None:
    """Let a + b and b + a be one node, which eliminating equal nodes does not see."""
    known: dict[tuple[str, frozenset[ir.Value | None]], ir.Node] = {}
    for node in graph:
        if node.op_type not in COMMUTATIVE or node.domain or len(node.inputs) != 2:
            continue
        first = known.setdefault((node.op_type, frozenset(node.inputs)), node)
        if first is node:
            continue
        for user, i in tuple(node.outputs[0].uses()):
            user.replace_input_with(i, first.outputs[0])
        if node.outputs[0].is_graph_output():  # its name has to stay
            node.op_type = "Identity"
            node.resize_inputs(1)
            node.replace_input_with(0, first.outputs[0])


def _drop_identities(model: ir.Model) -> None:
    """Let the users of a copy read the original. (onnx_ir's own pass loses a name where both are outputs.)"""
    for node in [n for n in model.graph.all_nodes() if n.op_type == "Identity" and not n.domain]:
        source, copy, graph = node.inputs[0], node.outputs[0], node.graph
        assert source is not None and graph is not None
        if copy.is_graph_output():
            producer = source.producer()
            if producer is None or producer.graph is not graph or source.is_graph_output():
                continue  # the output needs a value of its own to carry its name
            source.name, copy.name = copy.name, f"{copy.name}.replaced"
        if source.shape is None:
            source.shape = copy.shape
        ir.convenience.replace_all_uses_with(copy, source, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def prune(model: ir.Model) -> None:
    """Drop nodes, initializers and opset imports that nothing uses; in place."""
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass(process_functions=True)(model)
