"""What the attention kernels have in common: heads packed into the last dimension, and the form that a mask takes.

What the mask means (see ``passes/lift/masks.py``) decides its form. *None* needs no mask and *causal* is a flag: both
leave the fused kernels reachable. Everything else keeps its own values as an additive bias, padding too: as a mask
[B, T] it would reach no fused CUDA kernel, and as lengths [B] it would have to stand on the right, which no graph
promises. So every row stays what it was, those of padding too. A boolean mask stays with the standard operator, which
alone gives zeros where no key is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.masks import MASK, MaskMeaning, meaning_of
from onnxsmith.passes.lower.kernels import MICROSOFT

HEAD_MULTIPLE = 8  # of the head sizes that GroupQueryAttention takes
_TOLD = ("scale", "is_causal", "softcap", "q_num_heads", "kv_num_heads")


def attention(op: Any, parts: Sequence[Any], mask: Any, masked: bool) -> Any:
    """The standard operator on queries, keys and values, without a cache; what it is told is remembered."""
    told = {name: attr(name) for name in _TOLD}
    return op.Attention(*parts, mask, **told) if masked else op.Attention(*parts, **told)


def packed(m: Match) -> Mismatch | None:
    """q [B, S, H*D], k [B, T, H*D]; no cap on the scores; as many queries as keys where causal."""
    q, k = m.root.inputs[0], m.root.inputs[1]
    q_dims, k_dims = dims(q), dims(k)
    if q_dims is None or k_dims is None or len(q_dims) != 3 or len(k_dims) != 3:
        return Mismatch("rank", "queries and keys [B, S, H*D]", q, q)
    if not all(isinstance((dims(v) or [None])[-1], int) for v in m.root.inputs[:3]):
        return Mismatch("unknown-dim", "heads of a known size", q, q)
    if m.attribute("softcap"):
        return Mismatch("attribute", "no softcap", f"softcap={m.attribute('softcap')}", m.root)
    if is_causal(m) and (q_dims[1] is None or q_dims[1] != k_dims[1]):
        return Mismatch("shape", "as many queries as keys under a causal mask", q, q)
    return None


def bias_fits(m: Match) -> Mismatch | None:
    """A mask that is added to the scores as it stands: [B|1, H|1, S, T], in their type."""
    mask, q, k = bias(m), m.root.inputs[0], m.root.inputs[1]
    if mask is None:
        return None
    if q is None or mask.dtype != q.dtype:
        return Mismatch("mask", "a mask in the type of the queries", mask, mask)
    found, (rows, queries, _), (_, keys, _) = dims(mask), dims(q) or [None] * 3, dims(k) or [None] * 3
    if found is None or len(found) != 4 or None in found or found[2:] != [queries, keys]:
        return Mismatch("shape", f"a mask [B, H, {queries}, {keys}]", mask, mask)
    if found[0] not in (1, rows) or found[1] not in (1, m.attribute("q_num_heads")):
        return Mismatch("shape", f"a mask of one or {rows} rows, and of one head or all", mask, mask)
    return None


def is_causal(m: Match) -> bool:
    return bool(m.attribute("is_causal")) or meaning_of(m.root) == MaskMeaning(causal=True)


def bias(m: Match) -> ir.Value | None:
    """The mask, unless all that it says is said by its absence or by the causal flag."""
    said = meaning_of(m.root) in (MaskMeaning(), MaskMeaning(causal=True))
    return None if said else m.get("mask")


def told(m: Match) -> dict[str, Any]:
    """What every kernel is told alike."""
    return {"num_heads": m.attribute("q_num_heads"), "scale": m.attribute("scale"), "domain": MICROSOFT}


def annotated(m: Match, built: ir.Value) -> ir.Value:
    """With the mask's meaning, which explaining the result tells."""
    producer, recorded = built.producer(), m.root.metadata_props.get(MASK)
    if producer is not None and recorded is not None:
        producer.metadata_props[MASK] = recorded
    return built
