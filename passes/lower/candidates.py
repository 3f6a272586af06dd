"""The best next tokens with their log probabilities, where beams or sampling ask for so many.

    logits ── ArgMax ── next_token

becomes, with a new input int64 [1] ``candidates`` that is 0 unless it is given:

    scores, tokens, next_token = If candidates: TopK(LogSoftmax(logits), candidates), the first of these
                                 else:          none, none, ArgMax(logits)

Both take two thirds of a pass over the logits outside of the graph, and ArgMax is left out.

Shapes: B batch, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.record import Best, changed, recorded
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lower.optional import branch, optional_input

NAME = "ranked-tokens"
_DTYPES = (ir.DataType.FLOAT, ir.DataType.INT64)  # of scores and tokens
LEAST = 1 << 12  # of a vocabulary: a row of fewer logits is read in microseconds


def ranked_tokens(model: ir.Model) -> list[Remark]:
    """Let a decoder with a cache rank the tokens that its float32 logits of the last token make likely; in place."""
    cache = recorded(model)
    if cache is None or cache.next_token is None or not cache.last_only:
        return []
    outputs = {v.name: v for v in model.graph.outputs}
    logits, token = outputs[cache.logits], outputs[cache.next_token]
    choice, size = token.producer(), (dims(logits) or [None])[-1]
    if choice is None or choice.op_type != "ArgMax" or choice.inputs[0] is not logits:
        return []
    if logits.dtype != ir.DataType.FLOAT or not isinstance(size, int) or size < LEAST:
        return []
    changed(model, best=_build(model, logits, choice))
    return [Remark("analysis", NAME, "", reason="beams and sampling are given the best tokens, not all logits to read")]


def _build(model: ir.Model, logits: ir.Value, choice: ir.Node) -> Best:
    """The choice in place of ``choice``, with two more outputs; the names of what is new."""
    graph, op, names, token = model.graph, Builder(), Names(model), choice.outputs[0]
    count = optional_input(graph, names, "candidates", np.zeros(1, np.int64))
    ranked = branch(graph, names, "ranked", lambda inner: _ranked(inner, logits, count), NAME, [choice])
    alone = branch(graph, names, "best alone", lambda inner: _alone(inner, logits), NAME, [choice])
    asked = op.Cast(count, to=ir.DataType.BOOL)
    scores, tokens, best = op.several("If", 3, asked, then_branch=ranked, else_branch=alone)
    stamp(op.nodes, NAME, [choice])
    names.adopt(graph, op)
    shape = ir.Shape([(dims(logits) or [None])[0], 1, str(count.name)])
    for v, hint, dtype in zip((scores, tokens), ("candidate_scores", "candidate_tokens"), _DTYPES, strict=True):
        v.name, v.shape, v.type = names.value(hint), shape, ir.TensorType(dtype)
    best.shape, best.type, best.name, token.name = token.shape, token.type, token.name, names.value("argmax")
    graph.outputs[list(graph.outputs).index(token)] = best
    graph.insert_before(choice, op.nodes)
    graph.remove(choice, safe=True)
    graph.outputs.extend([scores, tokens])
    return Best(str(count.name), str(scores.name), str(tokens.name))


def _ranked(op: Builder, logits: ir.Value, count: ir.Value) -> Sequence[ir.Value]:
    scores, tokens = op.several("TopK", 2, op.LogSoftmax(logits, axis=-1), count, axis=-1)
    first = op.Slice(tokens, *(op.constant([n], "place", np.int64) for n in (0, 1, 2)))
    return scores, tokens, op.Squeeze(first, op.constant([2], "axis", np.int64))


def _alone(op: Builder, logits: ir.Value) -> Sequence[ir.Value]:
    return *nothing(op, _DTYPES), op.ArgMax(logits, axis=-1, keepdims=0)


def nothing(op: Builder, dtypes: Sequence[ir.DataType]) -> list[ir.Value]:
    """No candidates: [0, 1, 0] of each type."""
    shape = op.constant([0, 1, 0], "none", np.int64)
    return [op.ConstantOfShape(shape, value=ir.tensor(np.zeros(1, dtype.numpy()))) for dtype in dtypes]
