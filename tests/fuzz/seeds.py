"""The graphs that the fuzzer starts from: small attentions, norms, feed-forward networks and whole layers."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.sketch import HEAD, HEADS, HIDDEN, Sketch

_X = "float[B, S, 16] x"
_Y = "float[B, S, 16] y"
_ANGLES = f"float[B, 1, S, {HEAD}] cos, float[B, 1, S, {HEAD}] sin"


def _self(inputs: str = _X) -> Sketch:
    return Sketch(inputs, _Y)


def attention_padding() -> Sketch:
    s = _self(f"{_X}, int64[B, S] mask")
    s.op("Identity", s.attention("x", mask=s.padding()), out="y")
    return s


def attention_causal() -> Sketch:
    s = _self()
    s.op("Identity", s.attention("x", keep=s.causal()), out="y")
    return s


def attention_causal_padding() -> Sketch:
    s = _self(f"{_X}, int64[B, S] mask")
    padding = s.op("Cast<to=9>", s.op("Unsqueeze", "mask", "middle"))
    s.op("Identity", s.attention("x", keep=s.op("And", s.causal(), padding)), out="y")
    return s


def attention_cross() -> Sketch:
    s = _self(f"{_X}, float[B, T, 16] memory, int64[B, T] mask")
    s.op("Identity", s.attention("x", "memory", mask=s.padding()), out="y")
    return s


def attention_boolean() -> Sketch:
    s = _self(f"{_X}, float[B, T, 16] memory, bool[B, 1, S, T] keep")
    s.op("Identity", s.attention("x", "memory", keep="keep"), out="y")
    return s


def attention_bias() -> Sketch:
    """T5: a bias table and no scale."""
    s = _self(f"{_X}, float[1, 2, S, S] bias")
    q, k, v = (s.heads(s.linear("x", n, bias=False)) for n in "qkv")
    s.op("Identity", s.linear(s.attend(q, k, v, mask="bias", scaled=False), "out", bias=False), out="y")
    return s


def attention_bias_padding() -> Sketch:
    """MPNet: a bias table and padding, added one after the other."""
    s = _self(f"{_X}, float[1, 2, S, S] bias, int64[B, S] mask")
    q, k, v = (s.heads(s.linear("x", n)) for n in "qkv")
    mask = s.op("Add", "bias", s.padding())
    s.op("Identity", s.linear(s.attend(q, k, v, mask=mask), "out"), out="y")
    return s


def attention_window() -> Sketch:
    """Mistral: each query sees itself and the key before it."""
    s = _self()
    s.op("Identity", s.attention("x", keep=s.window()), out="y")
    return s


def attention_softcap() -> Sketch:
    """Gemma 2: the scores are bent by a tanh before they are masked."""
    s = _self(f"{_X}, int64[B, S] mask")
    q, k, v = (s.heads(s.linear("x", n, bias=False)) for n in "qkv")
    s.op("Identity", s.linear(s.attend(q, k, v, mask=s.padding(), cap=True), "out", bias=False), out="y")
    return s


def attention_alibi() -> Sketch:
    """MPT: a bias by distance under a causal mask."""
    s = _self()
    q, k, v = (s.heads(s.linear("x", n, bias=False)) for n in "qkv")
    s.op("Identity", s.linear(s.attend(q, k, v, mask=s.alibi(), keep=s.causal()), "out"), out="y")
    return s


def attention_alibi_padding() -> Sketch:
    """An encoder with ALiBi."""
    s = _self(f"{_X}, int64[B, S] mask")
    q, k, v = (s.heads(s.linear("x", n)) for n in "qkv")
    mask = s.op("Add", s.alibi(), s.padding())
    s.op("Identity", s.linear(s.attend(q, k, v, mask=mask), "out"), out="y")
    return s


def attention_rotary_pairs() -> Sketch:
    """GPT-J: neighbours are rotated."""
    s = _self(f"{_X}, {_ANGLES}")
    q, k, v = (s.heads(s.linear("x", n, bias=False)) for n in "qkv")
    attended = s.attend(s.rotated_pairs(q), s.rotated_pairs(k), v, keep=s.causal())
    s.op("Identity", s.linear(attended, "out"), out="y")
    return s


def attention_rotary() -> Sketch:
    s = _self(f"{_X}, {_ANGLES}")
    q, k, v = (s.heads(s.linear("x", n, bias=False)) for n in "qkv")
    s.op("Identity", s.linear(s.attend(s.rotated(q), s.rotated(k), v, keep=s.causal()), "out"), out="y")
    return s


def attention_grouped() -> Sketch:
    s = _self(f"{_X}, int64[B, S] mask")
    q = s.heads(s.linear("x", "q"))
    k, v = (s.repeated(s.heads(s.linear("x", n, HIDDEN, HEAD), "split_one")) for n in "kv")
    s.op("Identity", s.linear(s.attend(q, k, v, mask=s.padding()), "out"), out="y")
    return s


def attention_packed() -> Sketch:
    """GPT-2: queries, keys and values from one product."""
    s = _self()
    packed = s.linear("x", "qkv", HIDDEN, 3 * HIDDEN)
    s.lines.append(f"q, k, v = Split<axis=2>({packed}, thirds)")
    q, k, v = (s.heads(n) for n in "qkv")
    s.op("Identity", s.linear(s.attend(q, k, v, keep=s.causal()), "out"), out="y")
    return s


def attention_einsum() -> Sketch:
    s = _self(f"{_X}, int64[B, S] mask")
    q, k, v = (s.op("Reshape", s.linear("x", n), "split") for n in "qkv")
    scores = s.op('Einsum<equation="bshd,bthd->bhst">', q, k)
    masked = s.op("Add", s.op("Div", scores, "root_size"), s.padding())
    context = s.op('Einsum<equation="bhst,bthd->bshd">', s.op("Softmax<axis=-1>", masked), v)
    s.op("Identity", s.linear(s.op("Reshape", context, "merge"), "out"), out="y")
    return s


def layer_norm() -> Sketch:
    s = _self()
    s.layer_norm("x", "norm", "y")
    return s


def rms_norm() -> Sketch:
    s = _self()
    s.rms_norm("x", "norm", "y")
    return s


def feed_forward_gelu() -> Sketch:
    s = _self()
    s.op("Add", s.feed_forward("x", "gelu"), "x", out="y")
    return s


def feed_forward_gelu_tanh() -> Sketch:
    s = _self()
    s.op("Add", s.feed_forward("x", "gelu_tanh"), "x", out="y")
    return s


def feed_forward_swiglu() -> Sketch:
    s = _self()
    s.op("Add", s.gated("x", "silu"), "x", out="y")
    return s


def feed_forward_geglu() -> Sketch:
    s = _self()
    s.op("Add", s.gated("x", "gelu"), "x", out="y")
    return s


def encoder_layer() -> Sketch:
    """BERT: post-norm, padding mask."""
    s = _self(f"{_X}, int64[B, S] mask")
    attended = s.layer_norm(s.op("Add", s.attention("x", mask=s.padding()), "x"), "norm1")
    s.layer_norm(s.op("Add", s.feed_forward(attended, "gelu"), attended), "norm2", "y")
    return s


def decoder_layer() -> Sketch:
    """Llama: pre-norm, RMS norm, rotary embedding, grouped heads, SwiGLU."""
    s = _self(f"{_X}, {_ANGLES}")
    normal = s.rms_norm("x", "norm1")
    q = s.rotated(s.heads(s.linear(normal, "q", bias=False)))
    k, v = (s.heads(s.linear(normal, n, HIDDEN, HEAD, bias=False), "split_one") for n in "kv")
    attended = s.attend(q, s.repeated(s.rotated(k)), s.repeated(v), keep=s.causal())
    residual = s.op("Add", "x", s.linear(attended, "out", bias=False))
    s.op("Add", residual, s.gated(s.rms_norm(residual, "norm2"), "silu"), out="y")
    return s


def cross_decoder_layer() -> Sketch:
    """BART: post-norm, causal self-attention, then attention to a padded memory."""
    s = _self(f"{_X}, float[B, T, 16] memory, int64[B, T] mask")
    x = s.layer_norm(s.op("Add", "x", s.attention("x", keep=s.causal())), "norm1")
    crossed = s.attention(x, "memory", "cross", mask=s.padding())
    x = s.layer_norm(s.op("Add", x, crossed), "norm2")
    s.layer_norm(s.op("Add", x, s.feed_forward(x, "gelu_tanh")), "norm3", "y")
    return s


SEEDS: dict[str, Callable[[], Sketch]] = {
    build.__name__.replace("_", "-"): build
    for build in (
        attention_padding,
        attention_causal,
        attention_causal_padding,
        attention_cross,
        attention_boolean,
        attention_bias,
        attention_bias_padding,
        attention_window,
        attention_softcap,
        attention_rotary,
        attention_rotary_pairs,
        attention_alibi,
        attention_alibi_padding,
        attention_grouped,
        attention_packed,
        attention_einsum,
        layer_norm,
        rms_norm,
        feed_forward_gelu,
        feed_forward_gelu_tanh,
        feed_forward_swiglu,
        feed_forward_geglu,
        encoder_layer,
        decoder_layer,
        cross_decoder_layer,
    )
}
assert HEADS * HEAD == HIDDEN
