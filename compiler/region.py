"""What a pass changed, as regions that can be run alone: the new nodes, what they read, what they give."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.provenance import rule_of


@dataclass(frozen=True)
class Region:
    """Connected new nodes. ``inputs`` and ``outputs`` are names that exist before the pass as well."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def rules(self) -> set[str]:
        return {rule for node in self.nodes if (rule := rule_of(node))}


def changed(before: ir.Model, after: ir.Model) -> list[Region]:
    """The regions of new nodes; a region whose boundary did not exist before is left to the final check."""
    old_nodes = {n.name for n in before.graph}
    old_values = {v.name for n in before.graph for v in n.outputs}
    old_values |= {v.name for v in before.graph.inputs} | set(before.graph.initializers)
    added = [n for n in after.graph if n.name not in old_nodes]
    regions = [_region(group, after.graph) for group in _connected(added)]
    return [r for r in regions if r.outputs and old_values.issuperset(r.inputs + r.outputs)]


def _connected(nodes: list[ir.Node]) -> list[list[ir.Node]]:
    group: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        merged = [node]
        for producer in {v.producer() for v in node.inputs if v is not None}:
            if producer in group and group[producer] is not merged:
                merged = group[producer] + merged
                for member in merged:
                    group[member] = merged
        for member in merged:
            group[member] = merged
    return [list(dict.fromkeys(members)) for members in {id(g): g for g in group.values()}.values()]


def _region(nodes: list[ir.Node], graph: ir.Graph) -> Region:
    inside = set(nodes)
    reads = [v for n in nodes for v in n.inputs if v is not None and v.producer() not in inside]
    gives = [v for n in nodes for v in n.outputs if _leaves(v, inside)]
    inputs = [str(v.name) for v in reads if not (v.is_initializer() and not v.is_graph_input())]
    return Region(tuple(nodes), tuple(dict.fromkeys(inputs)), tuple(str(v.name) for v in gives))


def _leaves(v: ir.Value, inside: set[ir.Node]) -> bool:
    return v.is_graph_output() or any(user not in inside for user, _ in v.uses())


def cut(model: ir.Model, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> ir.Model:
    """A model of the nodes between the named values; weights are shared, not copied.

    What the outputs need besides the named inputs is computed from the model's own inputs, which then stay.
    """
    clone = model.clone()
    graph = clone.graph
    values = {v.name: v for n in graph for v in n.outputs} | {v.name: v for v in graph.inputs}
    read, given = [values[name] for name in inputs], [values[name] for name in outputs]
    needed = _needed(given, set(read))
    graph.outputs.clear()
    graph.outputs.extend(given)
    for v in read:
        if v.producer() is not None:
            v = _as_input(v)
        if v not in graph.inputs:
            graph.inputs.append(v)
    graph.remove([n for n in graph if n not in needed], safe=False)
    for name in [name for name, v in graph.initializers.items() if not v.uses()]:
        del graph.initializers[name]
    for v in [v for v in graph.inputs if v.name not in inputs and not v.uses()]:
        graph.inputs.remove(v)
    return clone


def _needed(given: list[ir.Value], stop: set[ir.Value]) -> set[ir.Node]:
    needed: set[ir.Node] = set()
    stack = [v for v in given if v not in stop]
    while stack:
        node = stack.pop().producer()
        if node is None or node in needed:
            continue
        needed.add(node)
        stack += [v for v in node.inputs if v is not None and v not in stop]
    return needed


def _as_input(v: ir.Value) -> ir.Value:
    """A free value in the place of a computed one."""
    fresh = ir.Value(name=v.name, shape=v.shape, type=v.type)
    ir.convenience.replace_all_uses_with(v, fresh, replace_graph_outputs=True)
    v.name = f"{v.name}/computed"
    return fresh


def expose(model: ir.Model, names: list[str]) -> ir.Model:
    """The model with the named inner values as its outputs."""
    clone = model.clone()
    values = {v.name: v for n in clone.graph for v in n.outputs}
    clone.graph.outputs.clear()
    clone.graph.outputs.extend(values[name] for name in names if name in values)
    return clone
