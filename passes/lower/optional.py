"""Inputs that need not be given, and branches on what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp

Build = Callable[[Builder], Sequence[ir.Value]]  # records nodes -> the outputs


def optional_input(graph: ir.Graph, names: Names, hint: str, default: np.ndarray) -> ir.Value:
    """A new input that has the default unless it is given."""
    dtype = ir.DataType.from_numpy(default.dtype)
    made = ir.Value(name=names.value(hint), shape=ir.Shape(default.shape), type=ir.TensorType(dtype))
    made.const_value = ir.tensor(default, name=made.name)
    graph.inputs.append(made)
    graph.register_initializer(made)
    return made


def branch(graph: ir.Graph, names: Names, title: str, build: Build, rule: str, old: Sequence[ir.Node]) -> ir.Graph:
    """A branch of an If in the graph, by a rule that replaces the old nodes; its constants are the graph's own."""
    inner = Builder()
    outputs = build(inner)
    names.adopt(graph, inner)
    stamp(inner.nodes, rule, old)
    return ir.Graph([], outputs, nodes=inner.nodes, name=title)
