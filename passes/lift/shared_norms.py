"""Norms of one input, each with a core of its own.

    x ─ norm (scale of ones) ┬─ * scale_1 (+ bias_1)
                             └─ * scale_2 (+ bias_2)

Blocks whose attention and feed-forward network run in parallel normalise one input twice, and share mean and deviation
once equal nodes are merged. Two norms that take in their scales and biases are less work than one that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import attribute, dims
from onnxsmith.passes.lift.norms import is_ones, vector

_NORMS = ("LayerNormalization", "RMSNormalization")


def _scaled(op: Any, normal: Any, scale: Any) -> Any:
    return op.Mul(normal, scale)


def _core(m: Match) -> Mismatch | None:
    """The norm is over the last axis, and its scale is still ones."""
    node = m["normal"].producer()
    if node is None or node.op_type not in _NORMS or len(node.inputs) != 2 or not is_ones(node.inputs[1]):
        return Mismatch("op-type", "a norm whose scale is still ones", m["normal"], m["normal"])
    if attribute(node, "axis") != -1 or attribute(node, "stash_type") != 1:
        return Mismatch("attribute", "a norm over the last axis, computed in float32", node.name, node)
    return None


def _several_scales(m: Match) -> Mismatch | None:
    """Every reader takes a scale: the last one that is left then takes the norm itself."""
    uses, width = m["normal"].uses(), dims(m["scale"])
    scales = [user.inputs[1 - at] for user, at in uses if user.op_type == "Mul"]
    if len(uses) > 1 and len(scales) == len(uses) and all(dims(scale) == width for scale in scales):
        return None
    return Mismatch("escapes", "several readers, each with a scale", m["normal"], m["normal"])


def _with_own_core(op: Builder, m: Match) -> ir.Value:
    node = m["normal"].producer()
    assert node is not None
    build: Callable[..., ir.Value] = getattr(op, node.op_type)
    return build(node.inputs[0], m["scale"], axis=-1, epsilon=attribute(node, "epsilon"))


_WHERE = (vector, shapes(normal="... D", scale="D"), same_dtype("normal", "scale"), _core, _several_scales)

RULES = [Rule("norm-of-its-own", _scaled, _with_own_core, _WHERE)]
