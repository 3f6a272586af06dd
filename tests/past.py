"""Decoders of the transformers library exported with their own cache, in the forms that exist."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

_NEW, _ALL, _KEPT = "sequence_length", "past_sequence_length + sequence_length", "past_sequence_length"


class WithPast(nn.Module):
    """Takes and gives keys and values as tensors of their own, as Hugging Face's optimum lets a decoder do."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()  # which the exporter leaves as it was, in its parts too

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor | None, *past: Tensor) -> tuple[Tensor, ...]:
        cache: Any = DynamicCache(config=self.model.config)
        for layer, keys, values in zip(cache.layers, past[::2], past[1::2], strict=True):
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            layer.keys, layer.values = keys, values
        found = self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache)
        return (found.logits, *(v for layer in cache.layers for v in (layer.keys, layer.values)))


def export_with_past(model: Any, path: Path, *, dynamo: bool, positions: bool) -> Path:
    """Write a decoder of the library with the names of optimum; with ``positions``, it takes ``position_ids`` too."""
    keys = model.config.get_text_config()
    heads = getattr(keys, "num_key_value_heads", keys.num_attention_heads)
    size = keys.hidden_size // keys.num_attention_heads
    layers = [f"{i}.{part}" for i in range(keys.num_hidden_layers) for part in ("key", "value")]
    past = [torch.randn(2, heads, 4, size) for _ in layers]
    ids, mask, places = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64), torch.arange(4, 7)
    given = {
        "input_ids": (ids, {0: "batch_size", 1: _NEW}),
        "attention_mask": (mask, {0: "batch_size", 1: _ALL}),
        "position_ids": (places.expand(2, 3).clone() if positions else None, {0: "batch_size", 1: _NEW}),
        **{f"past_key_values.{name}": (v, {0: "batch_size", 2: _KEPT}) for name, v in zip(layers, past, strict=True)},
    }
    arguments = tuple(v for v, _ in given.values())
    named = {name: axes for name, (v, axes) in given.items() if v is not None}
    outputs = ["logits", *(f"present.{name}" for name in layers)]
    names: dict[str, Any] = {"input_names": list(named), "output_names": outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            open_ = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
            kept = dict.fromkeys((0, 2), torch.export.Dim.DYNAMIC)
            shapes = (open_, open_, open_ if positions else None, tuple(kept for _ in layers))
            program = torch.export.export(WithPast(model), arguments, dynamic_shapes=shapes, strict=False)
            written = torch.onnx.export(program, dynamo=True, verbose=False, **names)
            assert written is not None
            written.save(path)
        else:
            axes = {**named, "logits": {0: "batch_size", 1: _NEW}}
            axes |= {name: {0: "batch_size", 2: _ALL} for name in outputs[1:]}
            torch.onnx.export(
                WithPast(model), arguments, str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names
            )
    return path
