"""Everything that must hold before anything is changed, and what of the graph a cache touches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxsmith.passes.cache.cones import Cones
from onnxsmith.passes.cache.last import find_logits
from onnxsmith.passes.cache.rowwise import check_rowwise, is_attention
from onnxsmith.passes.cache.sites import Site, find_sites
from onnxsmith.passes.cache.text import Refused, Text, find_text
from onnxsmith.passes.engine.values import dims

# Inputs that say a shape or an axis, and no element of a token.
_SHAPES = {"Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Tile": (1,), "Split": (1,)}


@dataclass(frozen=True)
class Edge:
    """A reader of the cones outside of them. ``axis`` goes along the tokens; None where the value has none."""

    node: ir.Node
    index: int
    value: ir.Value
    axis: int | None
    kind: str  # shape, mask or rows


@dataclass
class Plan:
    """The text, the cones, the attention sites, and where nodes read cones. Making it refuses what has no cache."""

    graph: ir.Graph
    source: Collection[str] = ()  # inputs that say something of another text
    text: Text = field(init=False)
    cones: Cones = field(init=False)
    sites: list[Site] = field(init=False)
    logits: ir.Value = field(init=False)
    edges: list[Edge] = field(init=False)

    def __post_init__(self) -> None:
        self.text = find_text(self.graph, self.source)
        self.cones = Cones(self.graph, self.text)
        if not any(map(is_attention, self.graph)):  # before its parts are found to mix tokens
            raise Refused("no attention was recognised")
        check_rowwise(self.graph, self.cones)
        self.sites = find_sites(self.graph, self.cones)
        self.logits = find_logits(self.graph, self.text)
        if len({(site.heads, site.size, site.keys.dtype) for site in self.sites}) > 1:
            raise Refused("the layers differ in the number or size of their heads")
        self.edges = [edge for node in self.graph for edge in self._edges(node)]

    def _edges(self, node: ir.Node) -> list[Edge]:
        if node in self.cones.nodes or not any(v in self.cones.hidden for v in node.outputs):
            return []
        read = [(i, v) for i, v in enumerate(node.inputs) if v is not None and self._is_cone(v)]
        return [self._edge(node, i, v) for i, v in read]

    def _is_cone(self, v: ir.Value) -> bool:
        return self.cones.holds(v) or v is self.text.mask

    def _edge(self, node: ir.Node, index: int, v: ir.Value) -> Edge:
        if index in _SHAPES.get(node.op_type, ()):
            return Edge(node, index, v, None, "shape")
        if node.op_type == "Attention" and index == 3:
            return Edge(node, index, v, len(dims(v) or ()) - 2, "mask")
        return Edge(node, index, v, self.text.axis(v), "rows")
