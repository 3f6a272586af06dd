"""Building replacement nodes with the same ``op.MatMul(a, b)`` spelling that patterns use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


class Builder:
    """Records new nodes and constants. ``None`` attributes are left out, trailing ``None`` inputs trimmed."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.origins: list[ir.Node] = []

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        def build(*inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
            return self._node(op_type, inputs, domain, 1, attributes).outputs[0]

        return build

    def stands_for(self, nodes: Iterable[ir.Node]) -> None:
        """Record that the new nodes stand for these, beside those that the pattern matched."""
        self.origins += nodes

    def several(
        self, op_type: str, count: int, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """A node with ``count`` outputs; one that is given the name "" is absent."""
        return self._node(op_type, inputs, domain, count, attributes).outputs

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value | None], domain: str, count: int, attributes: dict[str, Any]
    ) -> ir.Node:
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        present = ir.convenience.convert_attributes({k: v for k, v in attributes.items() if v is not None})
        self.nodes.append(ir.Node(domain, op_type, given, present, num_outputs=count))
        return self.nodes[-1]

    def constant(self, data: Any, hint: str, dtype: Any = None) -> ir.Value:
        """A new initializer; ``hint`` is made unique when the nodes enter the graph."""
        tensor = ir.tensor(np.asarray(data, dtype=dtype))
        return self.lazy_constant(tensor, hint)

    def lazy_constant(self, tensor: ir.TensorProtocol, hint: str) -> ir.Value:
        value = ir.Value(
            name=hint, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.constants.append(value)
        return value


def detach(nodes: Iterable[ir.Node]) -> None:
    """Let nodes that are in no graph, or will be in none, read nothing: values count them among their users else."""
    for node in nodes:
        for i in range(len(node.inputs)):
            node.replace_input_with(i, None)
