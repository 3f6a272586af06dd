"""The graphs inside If, Loop and Scan nodes, as what they are to the graph around them: part of one node."""

from __future__ import annotations

import onnx_ir as ir


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs in a node's attributes, and the graphs in those."""
    own: list[ir.Graph] = []
    for a in node.attributes.values():
        if a.type == ir.AttributeType.GRAPH:
            own.append(a.as_graph())
        elif a.type == ir.AttributeType.GRAPHS:
            own += a.as_graphs()
    return [graph for body in own for graph in (body, *body.subgraphs())]


def inside(node: ir.Node) -> list[ir.Node]:
    """The nodes of its bodies, at any depth."""
    return [n for body in bodies(node) for n in body]


def reads(node: ir.Node) -> list[ir.Value]:
    """What the node and its bodies take from the graph around it, each value once."""
    found = bodies(node)
    made = {v for g in found for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))}
    used = [*node.inputs, *(v for g in found for n in g for v in n.inputs)]
    return list(dict.fromkeys(v for v in used if v is not None and v not in made))
