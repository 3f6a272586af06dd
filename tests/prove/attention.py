"""The attention operators over the fields: ONNX's own, and ONNX Runtime's that take the place of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.prove.field import BIG, Element, Unproved, exactly
from tests.prove.operators import CONTRIB, Values, element, number, operator, softmax, tanh


def _given(v: Values, i: int) -> Any:
    return v[i] if len(v) > i else None


@operator("Attention")
def _attention(v: Values, a: dict[str, Any]) -> Element:
    """Attention-23 without a cache, on [B, H, S, D] or [B, S, H * D]."""
    if any(_given(v, i) is not None for i in (4, 5)):
        raise Unproved("a cache")
    packed = len(v[0].shape) == 3
    heads = a.get("q_num_heads"), a.get("kv_num_heads"), a.get("kv_num_heads")
    q, k, value = (split(x, n) if packed else x for x, n in zip(v[:3], heads, strict=True))
    mask = [_given(v, 3)] if _given(v, 3) is not None else []
    found = attend(q, k, value, a.get("scale"), mask, bool(a.get("is_causal")), a.get("softcap", 0.0))
    return join(found) if packed else found


@operator("MultiHeadAttention", CONTRIB)
def _multi_head(v: Values, a: dict[str, Any]) -> Element:
    if any(_given(v, i) is not None for i in (6, 7, 8, 9)) or _given(v, 1) is None or len(v[1].shape) != 3:
        raise Unproved("packed or cached inputs")
    n = a["num_heads"]
    q, k, value = v[:3]
    if (bias := _given(v, 3)) is not None:
        size = bias.shape[0] // 3
        q, k, value = (x + bias.map(lambda d, i=i: d[i * size : (i + 1) * size]) for i, x in enumerate((q, k, value)))
    masks = [] if _given(v, 5) is None else [v[5]]
    if (keys := _given(v, 4)) is not None:
        if keys.ndim != 2:
            raise Unproved("a mask of lengths")
        masks.append(keys.astype(bool)[:, None, None, :])
    q, k, value = (split(x, n) for x in (q, k, value))
    return join(attend(q, k, value, a.get("scale") or None, masks, bool(a.get("unidirectional"))))


@operator("Attention", CONTRIB)
def _packed(v: Values, a: dict[str, Any]) -> Element:
    """The three products inside; a mask is one of keys [B, T]."""
    if _given(v, 4) is not None:
        raise Unproved("a cache")
    x = v[0] @ v[1] + v[2]
    sizes = a.get("qkv_hidden_sizes") or [x.shape[-1] // 3] * 3
    ends = np.cumsum(sizes)
    q, k, value = (
        split(x.map(lambda d, i=i, n=n: d[..., ends[i] - n : ends[i]]), a["num_heads"]) for i, n in enumerate(sizes)
    )
    masks = [] if _given(v, 5) is None else [v[5]]
    if (keys := _given(v, 3)) is not None:
        if keys.ndim != 2:
            raise Unproved("a mask of lengths")
        masks.append(keys.astype(bool)[:, None, None, :])
    return join(attend(q, k, value, a.get("scale") or None, masks, bool(a.get("unidirectional"))))


@operator("GroupQueryAttention", CONTRIB)
def _grouped(v: Values, a: dict[str, Any]) -> tuple[Element | None, ...]:
    """Causal, of whole rows and without a cache."""
    if _given(v, 3) is not None or _given(v, 1) is None or a.get("do_rotary") or a.get("local_window_size", -1) > 0:
        raise Unproved("a cache, rotary embedding or a window")
    length = v[0].shape[1]
    if np.any(np.asarray(v[5]) != length - 1):
        raise Unproved("rows of several lengths")
    q, k, value = split(v[0], a["num_heads"]), split(v[1], a["kv_num_heads"]), split(v[2], a["kv_num_heads"])
    masks = [] if _given(v, 10) is None else [v[10]]
    return join(attend(q, k, value, a.get("scale") or None, masks, True, a.get("softcap", 0.0))), None, None


def split(x: Element, heads: int) -> Element:
    """[B, S, H * D] to [B, H, S, D]."""
    batch, length, size = x.shape
    return x.map(lambda d: d.reshape(batch, length, heads, size // heads).transpose(0, 2, 1, 3))


def join(x: Element) -> Element:
    batch, heads, length, size = x.shape
    return x.map(lambda d: d.transpose(0, 2, 1, 3).reshape(batch, length, heads * size))


def attend(
    q: Element, k: Element, v: Element, scale: float | None, masks: list[Any], causal: bool, cap: float = 0.0
) -> Element:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.map(lambda d: np.repeat(d, groups, axis=1)) for x in (k, v))
    root = math.sqrt(q.shape[-1])
    if scale is None and root % 1 and (root / math.sqrt(2)) % 1 > 1e-9:
        raise Unproved(f"the root of {q.shape[-1]} channels")
    factor = number(scale) if scale is not None else number(root).inverse()
    scores = factor * (q @ k.map(lambda d: np.swapaxes(d, -1, -2)))
    if cap:
        scores = number(cap) * tanh(number(cap).inverse() * scores)
    if causal:
        scores = scores + _forbidden(np.tri(*scores.shape[-2:], dtype=bool))
    for mask in masks:
        scores = scores + (mask if isinstance(mask, Element) else _forbidden(mask))
    return softmax(scores) @ v


def _forbidden(keep: Any) -> Element:
    return exactly(np.where(np.asarray(keep, bool), 0.0, -10 * BIG))


@operator("RotaryEmbedding")
def _rotary(v: Values, a: dict[str, Any]) -> Element:
    """RotaryEmbedding-23: the first ``rotary_embedding_dim`` channels of each head, in halves or in pairs."""
    packed = len(v[0].shape) == 3
    x = split(v[0], a["num_heads"]) if packed else v[0]
    cos, sin = element(v[1]), element(v[2])
    if _given(v, 3) is not None:
        cos, sin = (t.map(lambda d: d[v[3]]) for t in (cos, sin))
    half = cos.shape[-1]
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if a.get("interleaved") else (slice(half), slice(half, 2 * half))
    )
    cos, sin = (t.map(lambda d: d[:, None]) for t in (cos, sin))
    x1, x2 = (x.map(lambda d, at=at: d[..., at]) for at in (first, second))
    real, imaginary = cos * x1 - sin * x2, sin * x1 + cos * x2
    found = Element(x.p.copy(), None if x.q is None else x.q.copy(), x.infinite)
    for at, part in ((first, real), (second, imaginary)):
        found.p[..., at] = part.p
        if found.q is not None:
            if part.q is None:
                raise Unproved("an angle behind exp")
            found.q[..., at] = part.q
    return join(found) if packed else found
