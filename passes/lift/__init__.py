"""Lift: standard ONNX operators recovered from whatever spelling an exporter chose."""

from __future__ import annotations

from onnxsmith.passes.lift import (
    arithmetic,
    attention,
    batch,
    curves,
    einsum,
    gelu,
    heads,
    mask_shape,
    norms,
    order,
    packed,
    rows,
    scale,
    scores,
)

ARITHMETIC = [*arithmetic.RULES, *scale.TWINS, *rows.RULES, *order.RULES, *curves.RULES]
PRODUCTS = [*einsum.RULES, *packed.RULES, *batch.RULES]
NORMS_AND_ACTIVATIONS = [*norms.RULES, *gelu.RULES]
SCALES = [*scale.RULES, *arithmetic.FACTORS, *batch.RULES]
ATTENTION = [*scores.RULES, *attention.RULES]
HEADS = [*heads.RULES, *mask_shape.RULES]
RULES = [*ARITHMETIC, *PRODUCTS, *NORMS_AND_ACTIVATIONS, *SCALES, *ATTENTION, *HEADS]
