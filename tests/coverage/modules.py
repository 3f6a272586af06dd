"""Families of torch.nn, of x-transformers and of hand-written modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.coverage.family import (
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    POSITIONS,
    VOCABULARY,
    Dims,
    Expected,
    Family,
    Input,
    Output,
    ids,
    mask,
)

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TorchEncoder:
    """nn.TransformerEncoder over features with padding."""

    activation: str
    pre_norm: bool

    def __call__(self, attention: str) -> nn.Module:
        from torch import nn

        layer = nn.TransformerEncoderLayer(
            HIDDEN, HEADS, INNER, activation=self.activation, norm_first=self.pre_norm, batch_first=True
        )
        norm = nn.LayerNorm(HIDDEN) if self.pre_norm else None
        return nn.TransformerEncoder(layer, LAYERS, norm=norm, enable_nested_tensor=False)


@dataclass(frozen=True)
class TorchTransformer:
    """nn.Transformer with a causal target mask and padding on both sides."""

    activation: str
    pre_norm: bool

    def __call__(self, attention: str) -> nn.Module:
        from torch import nn

        from tests.coverage.wrappers import CausalTransformer

        return CausalTransformer(
            nn.Transformer(
                HIDDEN,
                HEADS,
                LAYERS,
                LAYERS,
                INNER,
                activation=self.activation,
                norm_first=self.pre_norm,
                batch_first=True,
            )
        )


@dataclass(frozen=True)
class Research:
    """A class of tests/coverage/research.py; ``flash`` says whether it takes the attention implementation."""

    name: str
    flash: bool = False

    def __call__(self, attention: str) -> nn.Module:
        from tests.coverage import research

        module: nn.Module = getattr(research, self.name)(*([attention == "sdpa"] if self.flash else []))
        return module


@dataclass(frozen=True)
class XTransformers:
    """A TransformerWrapper of the x-transformers package, an encoder or a decoder."""

    layers: str
    settings: tuple[tuple[str, object], ...] = ()
    masked: bool = True

    def __call__(self, attention: str) -> nn.Module:
        import x_transformers

        from tests.coverage.wrappers import Masked

        layers = getattr(x_transformers, self.layers)(
            dim=HIDDEN,
            depth=LAYERS,
            heads=HEADS,
            attn_dim_head=8,
            attn_flash=attention == "sdpa",
            **dict(self.settings),
        )
        wrapper = x_transformers.TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=POSITIONS, attn_layers=layers)
        return Masked(wrapper)


def _features(name: str, length: str) -> Input:
    dims: Dims = ("batch", length, HIDDEN)
    return Input(name, dims)


def _padding(name: str, length: str) -> Input:
    return Input(name, ("batch", length), "padding")


def _torch_encoder(norm: str, activation: str, gate: bool) -> Family:
    return Family(
        f"nn-encoder-{norm}-{activation}",
        TorchEncoder(activation, norm == "pre"),
        (_features("src", "sequence"), _padding("src_key_padding_mask", "sequence")),
        (Output("hidden", "src_key_padding_mask"),),
        Expected(LAYERS, 2 * LAYERS + (norm == "pre"), LAYERS),
        attention=("sdpa",),
        gate=gate,
    )


def _torch_transformer(norm: str, activation: str, gate: bool) -> Family:
    return Family(
        f"nn-transformer-{norm}-{activation}",
        TorchTransformer(activation, norm == "pre"),
        (
            _features("src", "source"),
            _features("tgt", "target"),
            _padding("src_key_padding_mask", "source"),
            _padding("tgt_key_padding_mask", "target"),
        ),
        (Output("hidden", "tgt_key_padding_mask"),),
        Expected(3 * LAYERS, 5 * LAYERS + 2, 2 * LAYERS),
        attention=("sdpa",),
        gate=gate,
    )


_TOKENS = (ids(), mask())
_LOGITS = (Output("logits", "attention_mask"),)
_PRE_NORM = Expected(LAYERS, 2 * LAYERS + 1, LAYERS)

FAMILIES = (
    _torch_encoder("post", "relu", True),
    _torch_encoder("post", "gelu", False),
    _torch_encoder("pre", "relu", False),
    _torch_encoder("pre", "gelu", True),
    _torch_transformer("post", "relu", True),
    _torch_transformer("pre", "gelu", False),
    Family("nanogpt", Research("NanoGpt", flash=True), (ids(),), (Output("logits"),), _PRE_NORM, gate=True),
    Family(
        "annotated",
        Research("AnnotatedTransformer"),
        (ids("source", "source"), ids("target", "target")),
        (Output("hidden", "target"),),
        Expected(3 * LAYERS, 5 * LAYERS + 2, 2 * LAYERS, inexpressible=5 * LAYERS + 2),
        attention=("eager",),
        gate=True,
    ),
    Family(
        "einsum",
        Research("EinsumEncoder"),
        _TOKENS,
        (Output("hidden", "attention_mask"),),
        Expected(LAYERS, 2 * LAYERS, LAYERS),
        attention=("eager",),
        gate=True,
    ),
    Family("x-encoder", XTransformers("Encoder"), _TOKENS, _LOGITS, _PRE_NORM),
    Family(
        "x-decoder-rotary",
        XTransformers(
            "Decoder", (("rotary_pos_emb", True), ("use_rmsnorm", True), ("ff_glu", True), ("ff_swish", True))
        ),
        _TOKENS,
        _LOGITS,
        Expected(LAYERS, 2 * LAYERS + 1, LAYERS, inexpressible=2 * LAYERS + 1),  # x / max(|x|, eps)
    ),
    Family(
        "x-decoder-alibi",
        XTransformers("Decoder", (("alibi_pos_bias", True), ("attn_kv_heads", 2))),
        _TOKENS,
        _LOGITS,
        _PRE_NORM,
    ),
)
