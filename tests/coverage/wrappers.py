"""Modules around other people's modules, so that all of them take tensors in order and give a tuple of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Call(nn.Module):
    """Hands its inputs over by name and gives the first ``outputs`` of the results."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], outputs: int) -> None:
        super().__init__()
        self.module, self.names, self.outputs = module, names, outputs

    def forward(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        result: Any = self.module(**dict(zip(self.names, values, strict=True)))
        if isinstance(result, Tensor):
            return result
        wanted: tuple[Tensor, ...] = tuple(result[n] for n in range(self.outputs))
        return wanted if self.outputs > 1 else wanted[0]


class WithPast(nn.Module):
    """A decoder of the transformers library whose cache is tensors [B, H, P, D]: past_key_0, past_value_0, ...

    Gives the logits or states [B, S, ...], then keys and values [B, H, P + S, D] of each layer. A decoder that attends
    to an encoder projects the encoder's states anew.
    """

    def __init__(self, module: nn.Module, layers: int) -> None:
        super().__init__()
        self.module, self.layers = module, layers

    def forward(self, **values: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache, EncoderDecoderCache

        cache = DynamicCache()
        for n in range(self.layers):
            cache.update(values.pop(f"past_key_{n}"), values.pop(f"past_value_{n}"), n)
        past = EncoderDecoderCache(cache, DynamicCache()) if "encoder_hidden_states" in values else cache
        result = self.module(**values, past_key_values=past, use_cache=True)
        present = (tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
        return (result[0], *present)


class CausalTransformer(nn.Module):
    """nn.Transformer with the target's causal mask made inside."""

    def __init__(self, transformer: nn.Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, src: Tensor, tgt: Tensor, src_key_padding_mask: Tensor, tgt_key_padding_mask: Tensor) -> Tensor:
        size = tgt.size(1)
        causal = torch.ones(size, size, dtype=torch.bool).triu(1)
        hidden: Tensor = self.transformer(
            src,
            tgt,
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=src_key_padding_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=src_key_padding_mask,
        )
        return hidden


class Masked(nn.Module):
    """A module of x-transformers, whose attention takes a bool mask [B, 1, S, T] with True for what may be seen.

    (Its padding mask goes through einx, which turns sizes into numbers, so that no exporter can let them vary.)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        size = attention_mask.size(1)
        allowed = attention_mask.bool()[:, None, None, :].expand(-1, 1, size, size)
        logits: Tensor = self.module(input_ids, attn_mask=allowed)
        return logits
