"""Keys and values of earlier tokens in int8: a quarter of the bytes that a step reads of the cache, and holds.

    GroupQueryAttention(.., past_key, past_value, ..)
    ->  GroupQueryAttention(.., past_key, past_value, .., k_scale, v_scale)

on buffers int8 [B, H, P, D], with one scale for each channel of each head, float32 [1, H, 1, D]. The kernel rounds what
it appends, keys after it turned them, and multiplies the codes as they stand; beyond its scale a value is clipped. Keys
have channels that are always large, which a scale for all of them would pay for. 9 heads of 64 over 3 of keys, 30
layers, 2 threads: a step takes 0.9x after 600 tokens and 0.8x after 1500, with weights in 8 bits or in float32, but a
prompt of 1500 by the same kernel 2x, so prompts go another way (see ``prompt_cache.py``). Sources: ONNX Runtime's
contrib operator GroupQueryAttention; Liu et al. 2024 (KIVI), arXiv:2402.02750.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.record import changed, recorded
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.quantize.int8 import LARGEST_CODE
from onnxsmith.passes.quantize.prompt_cache import K_SCALE, PAST, V_SCALE, branched, lengths

Array = np.ndarray[Any, Any]
SCALES, NAME = "cache-scales", "int8-cache"


def cache_scales(model: ir.Model, largest: Mapping[str, Array]) -> list[Remark]:
    """Give attention that appends in place the scales of its keys and values, which it reads once they are int8.

    ``largest`` is the largest magnitude [H, D] of each channel, by the name of present. Models that share a cache need
    the same scales, so these are given before weights are quantized, each model's in its own way.
    """
    sites, names = _sites(model), Names(model)
    for node in sites:
        op = Builder()
        node.resize_inputs(V_SCALE + 1)
        for place, present in zip((K_SCALE, V_SCALE), node.outputs[1:], strict=True):
            node.replace_input_with(place, op.constant(_scale(largest[str(present.name)]), f"{present.name}_scale"))
        names.adopt(model.graph, op)
    return [Remark("analysis", SCALES, "", reason=f"{len(sites)} layers have scales for int8")] if sites else []


def int8_cache(model: ir.Model) -> list[Remark]:
    """Store keys and values in int8 where attention has the scales; past and present change their type."""
    sites, names, cache = _sites(model), Names(model), recorded(model)
    if not sites or cache is None:
        return []
    for node in sites:
        for v in (*node.inputs[PAST], *node.outputs[1:]):
            assert v is not None, "attention that appends has both"
            v.type = ir.TensorType(ir.DataType.INT8)  # the old one may be shared with a copy of the model
    op = Builder()
    known = lengths(op, model.graph, cache)
    names.adopt(model.graph, op)
    model.graph.insert_before(sites[0], op.nodes)
    for node in sites:
        branched(node, known, names, NAME)
    changed(model, dtype="int8")
    return [Remark("analysis", NAME, "", reason=f"{len(sites)} layers store keys and values in int8")]


def _sites(model: ir.Model) -> list[ir.Node]:
    """Attention that appends to the cache of a model that has one in place."""
    cache = recorded(model)
    if cache is None or cache.layout != "in-place":
        return []
    return [n for n in model.graph if n.op_type == "GroupQueryAttention" and n.outputs[1].name in cache.present]


def _scale(largest: Array) -> Array:
    """[H, D] -> float32 [1, H, 1, D]; a channel that was always zero has any scale."""
    scale: Array = np.where(largest > 0, largest, 1)[None, :, None] / LARGEST_CODE
    return scale.astype(np.float32)
