"""Steps of fixed shapes: whether a mask may go on with zeros behind every row's tokens, up to the buffers' length.

Then a step takes and gives tensors of the same shapes at any length, and a GPU can replay it as a whole. Attention
counts the ones; what else is made of the mask or its length, a bias on the scores for one, may come out otherwise.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.cache.record import Cache

_LENGTH = 6  # the place of the longest row's length among the inputs of GroupQueryAttention
_FOLLOWED = frozenset({"Cast", "Mul", "Shape", "Slice", "Squeeze"})
_COUNTS = frozenset({"ReduceMax", "ReduceSum"})  # of the last columns, and of all: how many tokens there are


def takes_wide_masks(graph: ir.Graph, cache: Cache) -> bool:
    """Whether nothing is made of the mask of a model with a cache in place but counts of tokens, and its length."""
    pending = [v for v in graph.inputs if v.name == cache.mask]
    while pending:
        for node, index in pending.pop().uses():
            if node.op_type in _FOLLOWED:
                pending += node.outputs
            elif node.op_type not in _COUNTS and (node.op_type, index) != ("GroupQueryAttention", _LENGTH):
                return False
    return True
