"""An If whose condition is a constant becomes the nodes of the branch that it takes.

    y = If(true, then: z = Exp(x), else: ...)    ->    y = Exp(x)

TorchScript writes one for every question about a size that it could not settle while tracing, and a decoder that has
its first step and its later ones in one file is one If as a whole. Source: ONNX operator specification, If-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from onnxsmith.passes.engine.build import detach
from onnxsmith.passes.engine.names import name_apart
from onnxsmith.passes.engine.values import scalar

_ASIDE = "onnxsmith.aside"


def settle(model: ir.Model) -> bool:
    """Replace each If of a known condition, at any depth, by its branch; in place. Returns whether there was any."""
    found = False
    while chosen := next(filter(_is_known, model.graph.all_nodes()), None):
        _take(model, chosen)
        found = True
    return found


@contextmanager
def hidden(model: ir.Model) -> Iterator[None]:
    """Show no If as such in the block: onnxscript's folding settles them too, and by the default of an input as well.

    What is in their branches is still seen.
    """
    nodes = [node for node in model.graph.all_nodes() if _is_if(node)]
    for node in nodes:
        node.domain = _ASIDE
    try:
        yield
    finally:
        for node in nodes:
            node.domain = ""


def _is_if(node: ir.Node) -> bool:
    return node.op_type == "If" and not node.domain


def _is_known(node: ir.Node) -> bool:
    return _is_if(node) and scalar(node.inputs[0]) is not None


def _take(model: ir.Model, choice: ir.Node) -> None:
    graph = choice.graph
    assert graph is not None, "it was found in one"
    taken = "then_branch" if scalar(choice.inputs[0]) else "else_branch"
    branch = choice.attributes[taken].as_graph()
    results, nodes, weights = list(branch.outputs), list(branch), list(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(nodes)
    graph.insert_before(choice, nodes)
    for given, result in zip(choice.outputs, results, strict=True):
        if given.uses() or given.is_graph_output():
            _hand_over(graph, choice, given, result)
    graph.remove(choice, safe=True)
    for other in (a.as_graph() for name, a in choice.attributes.items() if name != taken):
        detach(other.all_nodes())
    name_apart(model, [*weights, *(v for node in nodes for v in node.outputs)])
    for v in weights:
        graph.register_initializer(v)


def _hand_over(graph: ir.Graph, choice: ir.Node, given: ir.Value, result: ir.Value) -> None:
    """Let a copy of the branch's result go by the name of what the If gave: the result may be a value around it."""
    copy = ir.node("Identity", [result])
    graph.insert_before(choice, copy)
    new = copy.outputs[0]
    new.name, new.type, new.shape = given.name, given.type or result.type, given.shape or result.shape
    ir.convenience.replace_all_uses_with(given, new, replace_graph_outputs=True)
