"""Decoders of the transformers library exported with their own cache, in the forms that exist."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

_NEW, _ALL, _KEPT = "sequence_length", "past_sequence_length + sequence_length", "past_sequence_length"


class WithPast(nn.Module):
    """Takes and gives keys and values as tensors of their own, as Hugging Face's optimum lets a decoder do."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()  # which the exporter leaves as it was, in its parts too

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor | None, *past: Tensor) -> tuple[Tensor, ...]:
        cache = _filled(self.model.config, past)
        found = self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache)
        return (found.logits, *_kept(cache))


class OfTwoWithPast(nn.Module):
    """A decoder that reads a source: ids, the source's mask and states, and keys and values of both texts.

    As optimum has it, there is no mask of the text, the states are not read, and only the text's own presents come out.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor, states: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        own, source = (_filled(self.model.config, half) for half in (past[: len(past) // 2], past[len(past) // 2 :]))
        cache = EncoderDecoderCache(own, source)
        read = BaseModelOutput(last_hidden_state=states)
        found = self.model(encoder_outputs=read, attention_mask=mask, decoder_input_ids=ids, past_key_values=cache)
        return (found.logits, *_kept(own))


def _filled(config: Any, past: tuple[Tensor, ...]) -> Any:
    cache: Any = DynamicCache(config=config.get_text_config(decoder=True))
    for layer, keys, values in zip(cache.layers, past[::2], past[1::2], strict=True):
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layer.keys, layer.values = keys, values
    return cache


def _kept(cache: Any) -> list[Tensor]:
    return [v for layer in cache.layers for v in (layer.keys, layer.values)]


def export_decoder_with_past(model: Any, path: Path, *, dynamo: bool) -> Path:
    """Write the decoder of an encoder-decoder of the library with the names of optimum."""
    source, text = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64)
    with torch.no_grad():
        found = model(input_ids=source, decoder_input_ids=text, use_cache=True)
    caches = (found.past_key_values.self_attention_cache, found.past_key_values.cross_attention_cache)
    past = [v for cache in caches for v in _kept(cache)]
    layers = [f"{i}.{{}}.{part}" for i in range(len(past) // 4) for part in ("key", "value")]
    own, cross = ([f"past_key_values.{name.format(side)}" for name in layers] for side in ("decoder", "encoder"))
    inputs = ["input_ids", "encoder_attention_mask", "encoder_hidden_states", *own, *cross]
    outputs = ["logits", *(f"present.{name.format('decoder')}" for name in layers)]
    given = (text[:, :3], source, found.encoder_last_hidden_state, *past)
    arguments = tuple(v.clone() for v in given)  # torch.export takes no views
    batch = {0: "batch_size"}
    axes: dict[str, Any] = {"input_ids": {**batch, 1: _NEW}, "logits": {**batch, 1: _NEW}}
    axes |= dict.fromkeys(inputs[1:3], {**batch, 1: "encoder_sequence_length"})
    axes |= dict.fromkeys(own, {**batch, 2: _KEPT}) | dict.fromkeys(outputs[1:], {**batch, 2: _ALL})
    axes |= dict.fromkeys(cross, {**batch, 2: "encoder_sequence_length_out"})
    names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if not dynamo:
            options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
            torch.onnx.export(OfTwoWithPast(model), arguments, str(path), **options, **names)
            return path
        open_, kept = (dict.fromkeys(at, torch.export.Dim.DYNAMIC) for at in ((0, 1), (0, 2)))
        shapes = (open_, open_, open_, tuple(kept for _ in past))
        program = torch.export.export(OfTwoWithPast(model), arguments, dynamic_shapes=shapes, strict=False)
        written = torch.onnx.export(program, dynamo=True, verbose=False, **names)
        assert written is not None
        written.save(path)
    return path


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
