"""Fresh names: nothing that a rewrite adds may take the name of something that is there."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder


class Names:
    """Every value and node name of a model, ``but`` those of some values, and unique new ones."""

    def __init__(self, model: ir.Model, but: Collection[ir.Value] = ()) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        apart = set(but)
        for graph in [*model.graphs(), *(f.graph for f in model.functions.values())]:
            self._values.update(graph.initializers)
            self._values.update(str(v.name) for v in graph.inputs if v not in apart)
            for node in graph:
                self._nodes.add(str(node.name))
                self._values.update(str(v.name) for v in node.outputs if v not in apart)

    def value(self, hint: str) -> str:
        """A name for one more value."""
        return _fresh(hint, self._values)

    def adopt(self, graph: ir.Graph, op: Builder) -> None:
        """Name the new nodes and values, and register the new constants as initializers."""
        for node in op.nodes:
            node.name = _fresh(node.op_type, self._nodes)
            for output in node.outputs:
                if output.name != "":  # an absent output has that name, and keeps it
                    output.name = _fresh(output.name or f"{node.op_type}_out", self._values)
        for value in op.constants:
            value.name = _fresh(str(value.name), self._values)
            graph.register_initializer(value)


def name_nodes(model: ir.Model) -> None:
    """Give every node a name that no other node has, since remarks and provenance go by names; in place."""
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        node.name = _fresh(node.name or node.op_type, taken)


def name_apart(model: ir.Model, moved: Collection[ir.Value]) -> None:
    """Let values that came into the model keep their names where these are free, and give them others elsewhere."""
    names = Names(model, but=moved)
    for v in moved:
        if v.name != "":  # an absent output has that name, and keeps it
            v.name = names.value(str(v.name))


def _fresh(hint: str, taken: set[str]) -> str:
    name = hint
    if name in taken:
        name = next(n for i in itertools.count(1) if (n := f"{hint}_{i}") not in taken)
    taken.add(name)
    return name
