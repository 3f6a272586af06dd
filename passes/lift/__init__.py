"""Lift: standard ONNX operators recovered from whatever spelling an exporter chose."""

from __future__ import annotations

from onnxsmith.passes.lift import (
    arithmetic,
    attention,
    batch,
    columns,
    curves,
    einsum,
    gelu,
    heads,
    joined_values,
    mask_shape,
    norms,
    order,
    packed,
    rotary_cache,
    rows,
    scale,
    scores,
    shared_norms,
    table_rows,
    widened,
)

ARITHMETIC = [*arithmetic.RULES, *scale.TWINS, *scale.BETWEEN_VIEWS, *rows.RULES, *order.RULES, *curves.RULES]
ARITHMETIC += table_rows.RULES
PRODUCTS = [*einsum.RULES, *columns.RULES, *packed.RULES, *batch.RULES, *order.RULES]  # parts may turn out equal
NORMS_AND_ACTIVATIONS = [*norms.RULES, *shared_norms.RULES, *gelu.RULES]
SCALES = [*scale.RULES, *arithmetic.FACTORS, *batch.RULES]
ATTENTION = [*joined_values.RULES, *widened.RULES, *scores.RULES, *attention.RULES]
HEADS = [*heads.RULES, *mask_shape.RULES, *rotary_cache.RULES]
RULES = [*ARITHMETIC, *PRODUCTS, *NORMS_AND_ACTIVATIONS, *SCALES, *ATTENTION, *HEADS]
