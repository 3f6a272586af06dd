"""Probabilities that weigh two tensors of values weigh them side by side, once.

    p · v1, p · v2        split(p · concat(v1, v2))

An attention with two tensors of values, or two of the same queries and keys once equal nodes are merged, is then one
site with values [B, K, T, D1 + D2]: a head of values may be of another size than a head of keys (ONNX operator
specification, Attention-23).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import not_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import attribute, dims


def _weighed(op: Any, p: Any, v1: Any, v2: Any) -> Any:
    return op.MatMul(p, v1), op.MatMul(p, v2)


def _probabilities(m: Match) -> Mismatch | None:
    """A softmax over keys that weighs values and is needed for nothing else."""
    p = m["p"]
    node = p.producer()
    if node is None or node.op_type != "Softmax" or node.domain or attribute(node, "axis") not in (-1, 3):
        return Mismatch("op-type", "Softmax", p, p)
    others = [user for user, at in p.uses() if user.op_type != "MatMul" or at != 0]
    if others or p.is_graph_output():
        return Mismatch("escapes", "probabilities that only weigh values", p, p)
    return None


def _known_sizes(m: Match) -> Mismatch | None:
    wide = next((m[name] for name in ("v1", "v2") if not isinstance((dims(m[name]) or [None])[-1], int)), None)
    return None if wide is None else Mismatch("unknown-dim", "values of a known size", wide, wide)


def _side_by_side(op: Builder, m: Match) -> Any:
    sizes = [(dims(m[name]) or [])[-1] for name in ("v1", "v2")]
    product = op.MatMul(m["p"], op.Concat(m["v1"], m["v2"], axis=-1))
    return op.several("Split", 2, product, op.constant(sizes, "value_sizes", np.int64), axis=-1)


_WHERE = (
    not_constant("v1", "v2"),
    shapes(p="_ _ _ _", v1="B K T _", v2="B K T _"),
    same_dtype("p", "v1", "v2"),
    _known_sizes,
    _probabilities,
)

RULES = [Rule("joined-values", _weighed, _side_by_side, _WHERE)]
