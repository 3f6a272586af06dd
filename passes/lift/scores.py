"""What is done to attention scores, brought to one form: the scores plus one mask.

    (scores + bias) + mask             scores + (bias + mask)
    where(c, scores + bias, low)       scores + where(c, bias, low)
    where(c, scores, low) + mask       scores + (where(c, 0, low) + mask)

Position biases, causal and padding masks are added one after the other, or fill the blocked scores with a number so
low that its share in the softmax is nothing: there, whatever the score adds to it does not matter. Source: ONNX
operator specification; masking as in Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import Either, either
from onnxsmith.passes.engine.require import scalar_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant, scalar

LOW = -1e4  # a score at or below this has no share in any softmax
_SWALLOWING = -1e12  # steps of float32 are 65536 wide here
_STEPS = 8  # masks and biases that stand behind each other
_ON_THE_WAY = frozenset({"Add", "Where", "Mul", "Div", "Tanh"})


def masked_low(*names: str) -> Requirement:
    """Each named value that is bound is a scalar so low that its probability is nothing."""
    is_scalar = scalar_constant(*names)

    def check(m: Match) -> Mismatch | None:
        if (why := is_scalar(m)) is not None:
            return why
        high = next((m[name] for name in names if m.get(name) is not None and (m.scalar(name) or 0) > LOW), None)
        return None if high is None else Mismatch("mask", "a constant of -1e4 or less for blocked scores", high, high)

    return check


def lowest(dtype: ir.DataType) -> float:
    """Half of the type's lowest number: it stays finite when a score is added to it, and swallows every score."""
    if dtype == ir.DataType.BFLOAT16:
        return -1.6e38
    return float(np.finfo(dtype.numpy()).min) / 2


def swallowing(low: float, dtype: ir.DataType) -> float:
    """The low number itself, or one so low that a score added to it is lost in rounding, as if it had been replaced."""
    return min(low, max(_SWALLOWING, lowest(dtype)))


def _masked(op: Any, scores: Any, bias: Any, d: Any, floor: Any) -> Either:
    filled = {"keep": op.Where(d, scores, floor), "drop": op.Where(d, floor, scores)}
    return either("inner", add=op.Add(scores, bias), **filled)


def _added(op: Any, scores: Any, bias: Any, d: Any, floor: Any, mask: Any) -> Any:
    return op.Add(_masked(op, scores, bias, d, floor), mask)


def _kept(op: Any, scores: Any, bias: Any, d: Any, floor: Any, c: Any, low: Any) -> Any:
    return op.Where(c, _masked(op, scores, bias, d, floor), low)


def _dropped(op: Any, scores: Any, bias: Any, d: Any, floor: Any, c: Any, low: Any) -> Any:
    return op.Where(c, low, _masked(op, scores, bias, d, floor))


def _one_added(op: Builder, m: Match) -> ir.Value:
    return op.Add(m["scores"], op.Add(_inner(op, m), m["mask"]))


def _one_kept(op: Builder, m: Match) -> ir.Value:
    return op.Add(m["scores"], op.Where(m["c"], _inner(op, m), _blocked(op, m, "low")))


def _one_dropped(op: Builder, m: Match) -> ir.Value:
    return op.Add(m["scores"], op.Where(m["c"], _blocked(op, m, "low"), _inner(op, m)))


def _inner(op: Builder, m: Match) -> ir.Value:
    if m.tag("inner") == "add":
        return m["bias"]
    pair = _number(op, m, 0), _blocked(op, m, "floor")
    return op.Where(m["d"], *(pair if m.tag("inner") == "keep" else pair[::-1]))


def _blocked(op: Builder, m: Match, name: str) -> ir.Value:
    dtype = m["scores"].dtype
    assert dtype is not None, "the rule requires scores of a known type"
    return _number(op, m, swallowing(m.scalar(name) or LOW, dtype))


def _number(op: Builder, m: Match, value: float) -> ir.Value:
    dtype = m["scores"].dtype
    assert dtype is not None, "the rule requires scores of a known type"
    return op.constant(value, "mask_value", dtype.numpy())


def _scores(m: Match) -> Mismatch | None:
    """A product of two activations, perhaps scaled and capped."""
    v = m["scores"]
    node = v.producer()
    while node is not None and node.op_type in ("Mul", "Div", "Tanh") and not node.domain:
        rest = [i for i in node.inputs if scalar(i) is None]
        node = rest[0].producer() if len(rest) == 1 and rest[0] is not None else None
    product = node is not None and node.op_type == "MatMul" and all(constant(i) is None for i in node.inputs)
    return None if product and v.dtype is not None else Mismatch("op-type", "attention scores", v, v)


def for_other_softmaxes(v: ir.Value) -> bool:
    """Whether all that reads the value are masks, scales and caps before softmaxes.

    Scores that several attentions share, each with a mask of its own: the operator computes them anew.
    """
    frontier = [v]
    for _ in range(_STEPS):
        users = [[user for user, _ in value.uses()] for value in frontier]
        if any(value.is_graph_output() for value in frontier) or not all(users):
            return False
        reached = dict.fromkeys(user for some in users for user in some if user.op_type != "Softmax")
        if any(user.op_type not in _ON_THE_WAY for user in reached):
            return False
        frontier = [user.outputs[0] for user in reached]
        if not frontier:
            return True
    return False


def _before_softmax(m: Match) -> Mismatch | None:
    """Nothing but further masks comes between here and the softmax."""
    v = m.outputs[0]
    for _ in range(_STEPS):
        users = [user for user, _ in v.uses()]
        if v.is_graph_output() or len(users) != 1:
            return Mismatch("escapes", "scores that only a softmax reads", v, m.root)
        if users[0].op_type == "Softmax":
            return None
        if users[0].op_type not in ("Add", "Where"):
            return Mismatch("op-type", "Softmax", users[0].op_type, users[0])
        v = users[0].outputs[0]
    return Mismatch("op-type", f"Softmax after at most {_STEPS} masks", v, v)


_WHERE = (_scores, _before_softmax, masked_low("low", "floor"))

RULES = [
    Rule("one-mask", _added, _one_added, _WHERE, stays=for_other_softmaxes),
    Rule("one-mask", _kept, _one_kept, _WHERE, stays=for_other_softmaxes),
    Rule("one-mask", _dropped, _one_dropped, _WHERE, stays=for_other_softmaxes),
]
