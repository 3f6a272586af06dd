"""How many bytes of weights one step of a decoder reads: what its speed is limited by, whatever the processor."""

from __future__ import annotations

import onnx_ir as ir

# Inputs that are tables, of which a run reads a few rows; https://onnx.ai/onnx/operators and ONNX Runtime's
# docs/ContribOperators.md list them.
_TABLES = {
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "GatherBlockQuantized": (0, 2, 3),
    "GroupQueryAttention": (7, 8),  # cosines and sines by position
    "RotaryEmbedding": (1, 2, 3),  # there too, behind position ids in ONNX Runtime's own
}


def step_bytes(model: ir.Model) -> int:
    """Bytes of the weights that a run on one token reads whole; one that several nodes take is counted once."""
    weights = [value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(v.const_value.nbytes for v in weights if v.const_value is not None and _is_read_whole(v))


def _is_read_whole(value: ir.Value) -> bool:
    return any(index not in _TABLES.get(node.op_type, ()) for node, index in value.uses())
