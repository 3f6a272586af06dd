"""What a model is made of: bytes on disk, nodes, operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir


@dataclass(frozen=True)
class Structure:
    """``size`` in bytes with external data; ``operators`` counts nodes by type, the most frequent first."""

    size: int
    nodes: int
    operators: Mapping[str, int]


def structure(model: ir.Model, path: Path) -> Structure:
    """Structure of a model whose .onnx file is at ``path``."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    operators = Counter(_operator(node) for graph in graphs for node in graph.all_nodes())
    return Structure(_size(model, path), operators.total(), dict(operators.most_common()))


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _size(model: ir.Model, path: Path) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    data = {Path(tensor.path).resolve() for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    return sum(file.stat().st_size for file in {path.resolve(), *data})
