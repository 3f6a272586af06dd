"""A cache by compilation: a causal decoder that was exported plainly gets past and present.

Every cone that depends on lengths and masks alone is instantiated for all T = P + S tokens and cut to the S new ones;
the rest runs on the new tokens as it stands. Attention appends their keys and values to those of the P earlier tokens.
What a text's tokens see of each other does not change as it grows, which is checked first: of a model for which it does
nothing is changed. An encoder-decoder is two models first (see ``source.py``), of which the decoder gets the cache.

Shapes: B batch, S new tokens, P tokens in the cache, H heads of keys and values, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxsmith.passes.cache.build import cached
from onnxsmith.passes.cache.last import follow_outputs
from onnxsmith.passes.cache.plan import Plan
from onnxsmith.passes.cache.record import Cache, Cross, recorded, source_of
from onnxsmith.passes.cache.source import split
from onnxsmith.passes.cache.text import Refused, find_texts
from onnxsmith.passes.engine.remark import Remark

__all__ = ["Cache", "Cross", "Refused", "find_texts", "kv_cache", "recorded", "split"]


def kv_cache(model: ir.Model, *, all_logits: bool = False, bounds: Mapping[str, int] | None = None) -> list[Remark]:
    """Give the lifted decoder a cache, in place; one remark, which says why where it cannot have one.

    It takes ids [B, S], a mask [B, P + S], where it has positions ``position_ids`` [B, S], and keys and values
    [B, H, P, D] of each layer; it gives logits [B, 1, V] of each row's last token (or [B, S, V] with ``all_logits``),
    ``next_token`` [B, 1] and the keys and values [B, H, P + S, D]. What stands where is recorded, see :func:`recorded`.
    ``bounds`` gives the largest size of a named dimension: that of the text is the largest P + S.
    """
    follow_outputs(model)
    cross = source_of(model)
    try:
        plan = Plan(model.graph, () if cross is None else [*cross.past, *filter(None, [cross.mask])])
        record = cached(model, plan, all_logits=all_logits, bounds=bounds or {})
    except Refused as refused:
        return [Remark("missed", "kv-cache", "", reason=str(refused))]
    reason = f"{record.layers} layers keep keys and values of {record.heads} heads of {record.head_size}"
    return [Remark("analysis", "kv-cache", "", reason=reason)]
