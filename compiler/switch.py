"""A model that holds two others at once: how each region where they differ is computed is chosen at run time.

Measuring what every layer alone costs would otherwise take a session, with all the weights, for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxsmith.compiler.region import Region

PREFIX = "onnxsmith.low."
_FLAG = ir.TensorType(ir.DataType.BOOL)


def switchable(high: ir.Model, low: ir.Model, regions: Sequence[Region]) -> ir.Model:
    """``high`` with an input bool[] ``onnxsmith.low.<i>`` for each region i: whether that computes as in ``low``.

    ``regions`` are those of ``changed(high, low)``; ``low`` must not be used afterwards.
    """
    model = high.clone()
    graph, weights = model.graph, dict(low.graph.initializers)
    values = {str(v.name): v for n in graph for v in n.outputs}
    values |= {str(v.name): v for v in graph.inputs} | dict(graph.initializers)
    low.graph.outputs.clear()  # a branch of the new model gives them, and a value is an output of one graph alone
    for i, region in enumerate(regions):
        low.graph.remove(region.nodes, safe=False)
        for node in region.nodes:
            _read(node, region, graph, values, weights)
        flag = ir.Value(name=f"{PREFIX}{i}", shape=ir.Shape([]), type=_FLAG)
        graph.inputs.append(flag)
        branches = [_low(region, i), _high(region, values, i)]
        attributes = [ir.AttrGraph(name, b) for name, b in zip(("then_branch", "else_branch"), branches, strict=True)]
        choice = ir.Node("", "If", [flag], attributes, num_outputs=len(region.outputs), name=f"choice {i}")
        graph.append(choice)
        for name, chosen in zip(region.outputs, choice.outputs, strict=True):
            _take_over(values[name], chosen, branches[1], graph)
            values[name] = chosen
    model.opset_imports.update(low.opset_imports)
    graph.sort()
    return model


def _read(
    node: ir.Node, region: Region, graph: ir.Graph, values: dict[str, ir.Value], weights: dict[str, ir.Value]
) -> None:
    """Let a node of ``low`` read the model's values, to which the weights that only ``low`` has are added."""
    for i, v in enumerate(node.inputs):
        if v is None or v.producer() in region.nodes:
            continue
        name = str(v.name)
        if name not in values:
            values[name] = ir.Value(name=name, shape=v.shape, type=v.type, const_value=weights[name].const_value)
            graph.register_initializer(values[name])
        node.replace_input_with(i, values[name])


def _low(region: Region, index: int) -> ir.Graph:
    """The region as ``low`` computes it, its values renamed since the names are those of the graph around it."""
    inner = {str(v.name): v for n in region.nodes for v in n.outputs}
    for name, v in inner.items():
        v.name = f"{name}/low"
    branch = ir.Graph([], [inner[name] for name in region.outputs], nodes=region.nodes, name=f"low {index}")
    branch.sort()
    return branch


def _high(region: Region, values: dict[str, ir.Value], index: int) -> ir.Graph:
    """The values that the graph around it computes in any case."""
    copies = [ir.Node("", "Identity", [values[name]]) for name in region.outputs]
    for name, copy in zip(region.outputs, copies, strict=True):
        copy.outputs[0].name, copy.outputs[0].type = f"{name}/high", values[name].type
    return ir.Graph([], [copy.outputs[0] for copy in copies], nodes=copies, name=f"high {index}")


def _take_over(before: ir.Value, chosen: ir.Value, high: ir.Graph, graph: ir.Graph) -> None:
    """Let what read ``before`` read ``chosen``, under its name; the branch that hands it on keeps reading it."""
    chosen.type, chosen.shape = before.type, before.shape
    chosen.name, before.name = before.name, f"{before.name}/computed"
    for user, i in tuple(before.uses()):
        if user.graph is not high:
            user.replace_input_with(i, chosen)
    for i, output in enumerate(graph.outputs):
        if output is before:
            graph.outputs[i] = chosen
