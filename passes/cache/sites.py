"""Attention that a cache serves: causal self-attention over the text, and how many heads of keys it has.

Attention over a source has its keys and values from there, and needs no cache: they are the same at every step.

Exporters repeat keys and values for the heads that share them. The cache holds them once: the operator itself lets
groups of heads share (Ainslie et al. 2023, arXiv:2305.13245; ONNX operator specification, Attention-23).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.cones import Cones
from onnxsmith.passes.cache.probe import Array, Probe, allowed, padded
from onnxsmith.passes.cache.rowwise import is_attention
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.values import attribute, dims

_SHORT, _LONG = 6, 9


@dataclass(frozen=True)
class Site:
    """One Attention; ``keys`` and ``values`` [B, H, S, D] or [B, S, H*D] are those of ``heads`` heads of ``size``."""

    node: ir.Node
    keys: ir.Value
    values: ir.Value
    heads: int
    size: int
    value_size: int

    @property
    def mask(self) -> ir.Value | None:
        return self.node.inputs[3] if len(self.node.inputs) > 3 else None


def find_sites(graph: ir.Graph, cones: Cones) -> list[Site]:
    """Every self-attention of the graph, in order. Refuses one that a cache does not serve."""
    nodes = [node for node in graph if is_attention(node)]
    over_source = [node for node in nodes if not any(v in cones.hidden for v in node.inputs[1:3])]
    sites = [_site(node, cones) for node in nodes if not cones.text.source or node not in over_source]
    if not sites:
        raise Refused("no attention was recognised")
    if cones.text.source:
        for mask in {node.inputs[3] for node in over_source if len(node.inputs) > 3}:
            check_lasting(mask, cones)
    for mask in {site.mask for site in sites if not attribute(site.node, "is_causal")}:
        check_causal(mask, cones)
    return sites


def _site(node: ir.Node, cones: Cones) -> Site:
    if any(v is not None for v in node.inputs[4:]) or sum(v.name != "" for v in node.outputs) > 1:
        raise Refused(f"{node.name} has a cache already")
    query, keys, values = node.inputs[:3]
    assert query is not None and keys is not None and values is not None, "the operator requires all three"
    for v in (query, keys, values):
        found = dims(v) or []
        axis = cones.text.axis(v) if v in cones.hidden else None
        if axis is None or axis != len(found) - 2 or not cones.text.is_batch(found[0]):
            raise Refused(f"{node.name} is no self-attention over the text: it reads {v.name} {found}")
    own_keys, own_values = _shared(keys), _shared(values)
    if own_keys is not None and own_values is not None and (dims(own_keys) or [])[1] == (dims(own_values) or [])[1]:
        keys, values = own_keys, own_values
    return Site(node, keys, values, *_heads(node, keys, values))


def _heads(node: ir.Node, keys: ir.Value, values: ir.Value) -> tuple[int, int, int]:
    found, wide = dims(keys) or [], dims(values) or []
    if len(found) == 4:
        sizes = (found[1], found[3], wide[3])
    else:
        heads = attribute(node, "kv_num_heads")
        parts = [d // heads if isinstance(d, int) and heads else None for d in (found[2], wide[2])]
        sizes = (heads, parts[0], parts[1])
    if not all(isinstance(size, int) for size in sizes):
        raise Refused(f"the heads of {node.name} have no known number or size")
    return sizes  # type: ignore[return-value]


def _shared(v: ir.Value) -> ir.Value | None:
    """[B, K, S, D] that is repeated for the heads of each group: reshape(expand(unsqueeze(x, 2)), [B, K*G, S, D])."""
    merged = v.producer()
    expanded = _producer(merged, "Reshape")
    inserted = _producer(expanded, "Expand")
    source = inserted.inputs[0] if inserted is not None and inserted.op_type in ("Unsqueeze", "Reshape") else None
    if merged is None or expanded is None or inserted is None or source is None:
        return None
    single, apart, all_heads, own = (dims(x) for x in (inserted.outputs[0], expanded.outputs[0], v, source))
    if single is None or apart is None or all_heads is None or own is None or len(own) != 4 or len(apart) != 5:
        return None
    batch, heads, length, size = own
    groups = apart[2]
    if single != [batch, heads, 1, length, size] or apart != [batch, heads, groups, length, size]:
        return None
    if not isinstance(heads, int) or not isinstance(groups, int) or all_heads != [batch, heads * groups, length, size]:
        return None
    return source


def _producer(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """What makes the first input of a node of that type."""
    if node is None or node.op_type != op_type or node.domain or node.inputs[0] is None:
        return None
    return node.inputs[0].producer()


def check_causal(mask: ir.Value | None, cones: Cones) -> None:
    """Refuse a mask under which what a token sees could change as the text grows."""
    if mask is None:
        raise Refused("attention is bidirectional: every token sees the later ones")
    if not cones.holds(mask):
        raise Refused(f"the mask {mask.name} is not computed from lengths and the attention mask")
    if (dims(mask) or [])[-1:] == [1] or len(dims(mask) or []) < 2:
        raise Refused(f"the mask {mask.name} has no keys to tell apart, {dims(mask)}")
    probe = Probe(cones, mask)
    for padding in padded(_LONG).values():
        whole, start = _square(probe(padding), _LONG), _square(probe(padding[:, :_SHORT]), _SHORT)
        seen = allowed(whole)
        if not seen[0, ..., np.arange(_LONG), np.arange(_LONG)].all():  # the first row has no padding
            raise Refused(f"the mask {mask.name} hides tokens that are marked with 1")
        some = seen.any(axis=-1, keepdims=True)  # a row with no allowed key may stand any way
        if np.any(seen & some & np.triu(np.ones((_LONG, _LONG), bool), 1)):
            raise Refused("attention is bidirectional: a token sees later ones")
        before = seen[..., :_SHORT, :_SHORT]
        if not np.array_equal(np.where(before, whole[..., :_SHORT, :_SHORT], 0), np.where(before, start, 0)):
            raise Refused(f"what the mask {mask.name} says of earlier tokens changes as the text grows")


def check_lasting(mask: ir.Value | None, cones: Cones) -> None:
    """Refuse a mask over a source under which what a token sees of it could change as the text grows."""
    if mask is None or not cones.holds(mask):
        return
    probe = Probe(cones, mask)
    for padding in padded(_LONG).values():
        whole, start = probe(padding), probe(padding[:, :_SHORT])
        if not np.array_equal(whole[..., : start.shape[-2], :], start):
            raise Refused(f"what the mask {mask.name} says of the source changes as the text grows")


def _square(mask: Array, length: int) -> Array:
    """All of [B|1, .., S, T], where a row stands for all queries."""
    return np.broadcast_to(mask, (*(mask.shape[:-2] or (1,)), length, length))
