"""Layers of encoders and decoders, made of whichever attention, feed-forward network and norm a model has.

Shapes: B batch, S length of the text at hand, P of what the cache has of it, T of the source, E hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from onnxsmith.models.cache import Cache, KeysValues
from onnxsmith.models.layers import Attention

Norm = Callable[[], nn.Module]


class Layer(nn.Module):
    """Self-attention and feed-forward, each with a norm and added to its input.

    The norm follows the sum, as in Vaswani et al. 2017 (arXiv:1706.03762), or stands in front of each part
    (``pre_norm``), as in Xiong et al. 2020 (arXiv:2002.04745). It is an encoder's or a decoder's by its mask.
    """

    def __init__(self, attention: Attention, feed_forward: nn.Module, norm: Norm, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = attention
        self.attention_norm = norm()
        self.feed_forward = feed_forward
        self.feed_forward_norm = norm()

    def forward(
        self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor] | None = None, cache: Cache | None = None
    ) -> Tensor:
        """x [B, S, E], mask additive [B, H|1, S|1, P + S], tables of ``Rotary`` -> [B, S, E]"""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask, rotary, cache=cache))
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        return x + part(norm(x)) if self.pre_norm else norm(x + part(x))


class DecoderLayer(Layer):
    """A layer with attention over the encoder's output between its two parts."""

    def __init__(
        self,
        attention: Attention,
        cross_attention: Attention,
        feed_forward: nn.Module,
        norm: Norm,
        *,
        pre_norm: bool = False,
    ) -> None:
        super().__init__(attention, feed_forward, norm, pre_norm=pre_norm)
        self.cross_attention = cross_attention
        self.cross_norm = norm()

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        mask: Tensor,
        memory: KeysValues,
        memory_mask: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x [B, S, E], mask [B, H|1, S, P + S], memory [B, H, T, D] twice, memory_mask [B, 1, 1, T] -> [B, S, E]"""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask, rotary, cache=cache))
        x = self._add(x, self.cross_norm, lambda y: self.cross_attention(y, memory_mask, memory=memory))
        return self._add(x, self.feed_forward_norm, self.feed_forward)


class Stack(nn.Module):
    """Layers one after the other, and a norm at the end where they are pre-norm."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(
        self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor] | None = None, cache: Cache | None = None
    ) -> Tensor:
        """x [B, S, E] -> [B, S, E]; the rest goes to every layer as it is."""
        for layer in self.layers:
            x = layer(x, mask, rotary, cache)
        return x if self.norm is None else self.norm(x)


class Decoder(Stack):
    """A stack of ``DecoderLayer``, each with keys and values of its own of what the encoder gave."""

    def keys_values(self, memory: Tensor) -> list[KeysValues]:
        """The encoder's output [B, T, E] -> keys and values [B, H, T, D] for each layer"""
        layers = cast("Iterable[DecoderLayer]", self.layers)
        return [layer.cross_attention.keys_values(memory) for layer in layers]

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        mask: Tensor,
        memory: Sequence[KeysValues],
        memory_mask: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x [B, S, E], mask [B, H|1, S, P + S], memory of ``keys_values``, memory_mask [B, 1, 1, T] -> [B, S, E]"""
        for layer, keys_values in zip(self.layers, memory, strict=True):
            x = layer(x, mask, keys_values, memory_mask, rotary, cache)
        return x if self.norm is None else self.norm(x)
