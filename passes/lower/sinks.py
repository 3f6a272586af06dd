"""Appending attention by the plain kernel: a sink for each head that takes no part.

    GroupQueryAttention(.., attention_bias)  ->  GroupQueryAttention(.., attention_bias, head_sink)

ONNX Runtime 1.31 has two kernels of the operator for float32. The tiled one seems to give masked scores denormal
weights, on which products are many times slower: with denormals flushed to zero a prompt takes 0.6x. The plain
one does not, and is chosen where heads have a sink: one more score in the softmax, here so low that its weight is
exactly zero. 9 heads of 64 over 3 of keys, 2 threads: a prompt of 512 tokens takes 0.43x of the time, a step after 1400
tokens 1.0x and after 4000 0.7x; after 64 it takes 4 us more. The plain kernel keeps all scores of a run, [B, H, S, T],
so long prompts are read in pieces (see ``runtime/generation/decoder.py``). Sources: ONNX Runtime's contrib
operator GroupQueryAttention; sinks: Xiao et al. 2023, arXiv:2309.17453.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute
from onnxsmith.passes.lower.kernels import MICROSOFT

NAME = "plain-attention"
_PAST, _SINK = 3, 11  # places among the inputs
_NOTHING = np.finfo(np.float32).min  # below every score: the softmax gives it zero


def sinks(model: ir.Model) -> list[Remark]:
    """Give a sink to the heads of every float32 GroupQueryAttention that appends to a cache and has none."""
    nodes = [n for n in model.graph if n.op_type == "GroupQueryAttention" and n.domain == MICROSOFT]
    sites = [n for n in nodes if _appends(n) and len(n.inputs) <= _SINK and n.outputs[0].dtype == ir.DataType.FLOAT]
    if not sites:
        return []
    op = Builder()
    counts = {attribute(n, "num_heads") for n in sites}
    made = {heads: op.constant(np.full(heads, _NOTHING), "no_sink") for heads in counts}
    Names(model).adopt(model.graph, op)
    for node in sites:
        node.resize_inputs(_SINK + 1)
        node.replace_input_with(_SINK, made[attribute(node, "num_heads")])
    return [Remark("analysis", NAME, "", reason=f"{len(sites)} layers attend by the plain kernel")]


def _appends(node: ir.Node) -> bool:
    return len(node.inputs) > _PAST and node.inputs[_PAST] is not None
