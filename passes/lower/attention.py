"""Attention with as many heads of keys as of queries becomes the most joined kernel of the target.

    queries, keys and values from one input   ->  Attention (com.microsoft): one product, biases included
    any others                                ->  MultiHeadAttention, biases included

Source: ONNX Runtime's contrib operators of these names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.absent import joined
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import either
from onnxsmith.passes.engine.require import is_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.lower import heads
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

_WEIGHTS = ("q_weight", "k_weight", "v_weight")
_BIASES = ("q_bias", "k_bias", "v_bias")


def _maybe_biased(op: Any, parts: Any, biases: Any) -> list[Any]:
    named = zip(_BIASES, parts, biases, strict=True)
    return [either(f"with_{name}", yes=op.Add(part, bias), no=part) for name, part, bias in named]


def _of_one_input(masked: bool) -> Any:
    def pattern(
        op: Any, x: Any, q_weight: Any, k_weight: Any, v_weight: Any, q_bias: Any, k_bias: Any, v_bias: Any, mask: Any
    ) -> Any:
        products = [op.MatMul(x, weight) for weight in (q_weight, k_weight, v_weight)]
        return heads.attention(op, _maybe_biased(op, products, (q_bias, k_bias, v_bias)), mask, masked)

    return pattern


def _of_any(masked: bool) -> Any:
    def pattern(op: Any, q: Any, k: Any, v: Any, q_bias: Any, k_bias: Any, v_bias: Any, mask: Any) -> Any:
        return heads.attention(op, _maybe_biased(op, (q, k, v), (q_bias, k_bias, v_bias)), mask, masked)

    return pattern


def _same_heads(m: Match) -> Mismatch | None:
    queries, keys = m.attribute("q_num_heads"), m.attribute("kv_num_heads")
    return None if queries == keys else Mismatch("attribute", f"{queries} heads of keys", f"{keys} heads", m.root)


def _biases_fit(m: Match) -> Mismatch | None:
    """Each bias is as long as what it is added to is wide."""
    for i, name in enumerate(_BIASES):
        bias = m.get(name)
        if bias is not None and dims(bias) != (dims(m.root.inputs[i]) or [])[-1:]:
            return Mismatch("shape", f"{name} a vector", bias, bias)
    return None


def _own_weights(m: Match) -> Mismatch | None:
    """Weights that nobody else reads, since joining shared ones would copy them; keys as wide as queries."""
    for name in _WEIGHTS:
        if len(m[name].uses()) > 1:
            return Mismatch("escapes", f"{name} used once", m[name], m[name])
    q, k = dims(m["q_weight"]), dims(m["k_weight"])
    return None if q == k else Mismatch("shape", "keys as wide as queries", m["k_weight"], m["k_weight"])


def _joined_bias(op: Builder, m: Match) -> ir.Value:
    """The biases of queries, keys and values in a row, zeros for one that is absent: the CPU kernel reads it always."""
    q = m.root.inputs[0]
    assert q is not None and q.dtype is not None, "the rule requires one type"
    tensors: list[ir.TensorProtocol] = []
    for part, name in zip(m.root.inputs, _BIASES, strict=False):
        given, width = constant(m.get(name)), (dims(part) or [0])[-1]
        assert isinstance(width, int), "the rule requires heads of a known size"
        tensors.append(ir.tensor(np.zeros(width, q.dtype.numpy())) if given is None else given)
    return op.lazy_constant(joined(tensors), "qkv_bias")


def _in_one(op: Builder, m: Match) -> ir.Value:
    tensors = [tensor for name in _WEIGHTS if (tensor := constant(m[name])) is not None]
    widths = [tensor.shape.numpy()[-1] for tensor in tensors]
    inputs = (m["x"], op.lazy_constant(joined(tensors), "qkv_weight"), _joined_bias(op, m), None, None, heads.bias(m))
    flags = {
        "unidirectional": 1 if heads.is_causal(m) else None,
        "qkv_hidden_sizes": widths if len(set(widths)) > 1 else None,
    }
    return heads.annotated(m, op.Attention(*inputs, **flags, **heads.told(m)))


def _multi_head(op: Builder, m: Match) -> ir.Value:
    bias = _joined_bias(op, m) if any(m.get(name) is not None for name in _BIASES) else None
    inputs = (m["q"], m["k"], m["v"], bias, None, heads.bias(m))
    causal = 1 if heads.is_causal(m) else None
    return heads.annotated(m, op.MultiHeadAttention(*inputs, unidirectional=causal, **heads.told(m)))


def rules(kernels: Kernels) -> list[Rule]:
    """Those of one input first."""
    fits = (is_constant(*_BIASES), _biases_fit, heads.packed, _same_heads, heads.bias_fits)
    of_one = (
        is_constant(*_WEIGHTS),
        shapes(x="_ _ K", q_weight="K _", k_weight="K _", v_weight="K _"),
        same_dtype("x", *_WEIGHTS, *_BIASES),
        *fits,
        _own_weights,
        kernels.runs(MICROSOFT, "Attention", "x"),
    )
    of_any = (same_dtype("q", "k", "v", *_BIASES), *fits, kernels.runs(MICROSOFT, "MultiHeadAttention", "q"))
    return [
        *(Rule("packed-attention", _of_one_input(masked), _in_one, of_one) for masked in (True, False)),
        *(Rule("multi-head-attention", _of_any(masked), _multi_head, of_any) for masked in (True, False)),
    ]
