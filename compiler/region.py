"""What a pass changed, as regions that can be run alone: the new nodes, what they read, what they give.

What changed inside an If, Loop or Scan cannot be cut out of it: there the region is the whole node.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.compiler.bodies import inside, reads
from onnxsmith.passes.engine.build import detach
from onnxsmith.passes.engine.provenance import origins, rule_of, rules_of


@dataclass(frozen=True)
class Region:
    """Connected nodes that are new or have ``new`` ones inside; the names exist before the pass as well."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    new: frozenset[ir.Node]

    def rules_at(self, output: str) -> list[str]:
        """The rules behind an output: the one that built its node, or all that built in the bodies of its node."""
        node = next(n for n in self.nodes if any(v.name == output for v in n.outputs))
        built = [node] if node in self.new else [n for n in inside(node) if n in self.new]
        return list(dict.fromkeys(rule_of(n) or "tidy" for n in built))


def changed(before: ir.Model, after: ir.Model, *, renamed: bool = False) -> list[Region]:
    """The regions of new nodes; a region whose boundary did not exist before is left to the final check.

    ``renamed``: many passes lie between the two, so that a name which became free may have been given anew. Then a
    value existed before if the node behind it stands for the one that gave it.
    """
    kept = _values(before)
    if renamed:
        made = {v.name: set(origins(n)) for n in before.graph for v in n.outputs}
        other = {v.name for n in after.graph for v in n.outputs if made.get(v.name, set()).isdisjoint(origins(n))}
        kept -= other
    return [r for r in regions(before, after) if r.outputs and kept.issuperset(r.inputs + r.outputs)]


def _values(model: ir.Model) -> set[str | None]:
    given = {v.name for v in model.graph.inputs} | set(model.graph.initializers)
    return given | {v.name for n in model.graph for v in n.outputs}


def regions(before: ir.Model, after: ir.Model) -> list[Region]:
    """All of them, each node that is new in exactly one."""
    old = {n.name: rules_of(n) for n in before.graph.all_nodes()}
    new = frozenset(n for n in after.graph.all_nodes() if old.get(n.name) != rules_of(n))
    added = [n for n in after.graph if n in new or not new.isdisjoint(inside(n))]
    return [_region(group, new) for group in _connected(added)]


def _connected(nodes: list[ir.Node]) -> list[list[ir.Node]]:
    group: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        merged = [node]
        for producer in {v.producer() for v in reads(node)}:
            if producer in group and group[producer] is not merged:
                merged = group[producer] + merged
                for member in merged:
                    group[member] = merged
        for member in merged:
            group[member] = merged
    return [list(dict.fromkeys(members)) for members in {id(g): g for g in group.values()}.values()]


def _region(nodes: list[ir.Node], new: frozenset[ir.Node]) -> Region:
    within = {*nodes, *(inner for n in nodes for inner in inside(n))}
    taken = [v for n in nodes for v in reads(n) if v.producer() not in within]
    gives = [v for n in nodes for v in n.outputs if _leaves(v, within)]
    inputs = [str(v.name) for v in taken if not is_weight(v)]
    return Region(tuple(nodes), tuple(dict.fromkeys(inputs)), tuple(str(v.name) for v in gives), new)


def is_weight(v: ir.Value) -> bool:
    """Whether the value is an initializer that no caller can replace."""
    return v.is_initializer() and not v.is_graph_input()


def _leaves(v: ir.Value, within: set[ir.Node]) -> bool:
    return v.is_graph_output() or any(user not in within for user, _ in v.uses())


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
    unneeded = [n for n in graph if n not in needed]
    detach(inner for n in unneeded for inner in (*inside(n), n))  # so that weights of theirs have no use left
    graph.remove(unneeded, safe=False)
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
        stack += [v for v in reads(node) if v not in stop]
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
