"""Layers of encoders and decoders, made of whichever attention, feed-forward network and norm a model has.

Shapes: B batch, S target length, T source length, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from onnxsmith.models.layers import Attention

Norm = Callable[[], nn.Module]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a norm and added to its input.

    The norm follows the sum, as in Vaswani et al. 2017 (arXiv:1706.03762), or stands in front of each part
    (``pre_norm``), as in Xiong et al. 2020 (arXiv:2002.04745).
    """

    def __init__(self, attention: Attention, feed_forward: nn.Module, norm: Norm, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = attention
        self.attention_norm = norm()
        self.feed_forward = feed_forward
        self.output_norm = norm()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, S, E], mask additive [B, H|1, S|1, S] -> [B, S, E]"""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask))
        return self._add(x, self.output_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        return x + part(norm(x)) if self.pre_norm else norm(x + part(x))


class DecoderLayer(EncoderLayer):
    """An encoder's layer with attention over the encoder's output between its two parts."""

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

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:  # type: ignore[override]
        """x [B, S, E], mask [B, H|1, S, S], memory [B, T, E], memory_mask [B, 1, 1, T] -> [B, S, E]"""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask))
        x = self._add(x, self.cross_norm, lambda y: self.cross_attention(y, memory_mask, memory))
        return self._add(x, self.output_norm, self.feed_forward)


class Stack(nn.Module):
    """Layers one after the other, and a norm at the end where they are pre-norm."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """x [B, S, E] -> [B, S, E]; ``context`` goes to every layer as it is."""
        for layer in self.layers:
            x = layer(x, *context)
        return x if self.norm is None else self.norm(x)
