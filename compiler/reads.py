"""How many bytes of weights one step of a decoder reads: what its speed is limited by, whatever the processor."""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.lower.greedy import idle_branch

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


def step_bytes(model: ir.Model, *, greedy: bool = False) -> int:
    """Bytes of the weights that a run on one token reads whole; one that several nodes take is counted once.

    Where the head is screened (see ``passes/lower/greedy.py``), those of a run that gives the logits, or of one that is
    ``greedy`` and sure of its token.
    """
    idle = idle_branch(model, greedy=greedy)
    weights = [value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(v.const_value.nbytes for v in weights if v.const_value is not None and _is_read_whole(v, idle))


def _is_read_whole(value: ir.Value, idle: ir.Graph | None) -> bool:
    return any(_reads_whole(node, index, idle) for node, index in value.uses())


def _reads_whole(node: ir.Node, index: int, idle: ir.Graph | None) -> bool:
    if node.graph is idle or index in _TABLES.get(node.op_type, ()):
        return False
    return node.op_type != "Transpose" or _is_read_whole(node.outputs[0], idle)  # turned when the model is loaded
