"""Lift: standard ONNX operators recovered from whatever spelling an exporter chose."""

from __future__ import annotations

from onnxsmith.passes.lift import attention, einsum, gelu, heads, mask_shape, norms, scale

PRODUCTS = einsum.RULES
NORMS_AND_ACTIVATIONS = [*norms.RULES, *gelu.RULES]
SCALES = scale.RULES
ATTENTION = attention.RULES
HEADS = [*heads.RULES, *mask_shape.RULES]
RULES = [*PRODUCTS, *NORMS_AND_ACTIVATIONS, *SCALES, *ATTENTION, *HEADS]
