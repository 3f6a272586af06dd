"""Encoder-decoders of the transformers library in the files that Hugging Face's optimum writes."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from tests.past import export_decoder_with_past

_BATCH, _SOURCE, _TEXT = "batch_size", "encoder_sequence_length", "decoder_sequence_length"
_PAST = "past_decoder_sequence_length + decoder_sequence_length"


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


class _FirstStep(nn.Module):
    """Gives the keys and values of both texts beside its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, mask: Tensor, ids: Tensor, states: Tensor) -> tuple[Tensor, ...]:
        own, source = (DynamicCache(config=self.model.config) for _ in range(2))
        read = BaseModelOutput(last_hidden_state=states)
        cache = EncoderDecoderCache(own, source)
        found = self.model(encoder_outputs=read, attention_mask=mask, decoder_input_ids=ids, past_key_values=cache)
        pairs = [(layer.keys, layer.values) for kept in (own, source) for layer in kept.layers]
        return (found.logits, *(v for pair in pairs for v in pair))


def write_exported(model: Any, folder: Path, *, merged: bool = False) -> Path:
    """encoder_model.onnx, and decoder_model.onnx or the one with the later steps in it, beside the model's config."""
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    source, text = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64)
    states = _Encoder(model)(source, source)
    of_source, of_text = {0: _BATCH, 1: _SOURCE}, {0: _BATCH, 1: _TEXT}
    given = {"input_ids": of_source, "attention_mask": of_source}
    _export(_Encoder(model), (source, source), folder / "encoder_model.onnx", given, {"last_hidden_state": of_source})
    given = {"encoder_attention_mask": of_source, "input_ids": of_text, "encoder_hidden_states": of_source}
    layers = range(model.config.num_hidden_layers)
    presents = {
        f"present.{i}.{side}.{part}": {0: _BATCH, 2: length}
        for side, length in (("decoder", _PAST), ("encoder", _SOURCE))
        for i in layers
        for part in ("key", "value")
    }
    first = folder / "decoder_model.onnx"
    _export(_FirstStep(model), (source, text, states), first, given, {"logits": of_text, **presents})
    later = export_decoder_with_past(model, folder / "decoder_with_past_model.onnx", dynamo=False)
    if merged:
        onnx.save(_merged(onnx.load(first), onnx.load(later)), folder / "decoder_model_merged.onnx")
        first.unlink()
        later.unlink()
    return folder


def _export(
    module: nn.Module, arguments: tuple[Tensor, ...], path: Path, given: dict[str, Any], found: dict[str, Any]
) -> None:
    names: dict[str, Any] = {"input_names": list(given), "output_names": list(found), "dynamic_axes": given | found}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, arguments, str(path), dynamo=False, opset_version=17, **names)


def _merged(first: onnx.ModelProto, later: onnx.ModelProto) -> onnx.ModelProto:
    """One If: the later steps, or the first. Weights are in the graph around both, equal ones once."""
    weights = {t.name: t for t in first.graph.initializer}
    known, renamed = {t.raw_data: name for name, t in weights.items()}, {}
    for tensor in later.graph.initializer:
        renamed[tensor.name] = known.setdefault(tensor.raw_data, f"later.{tensor.name}")
        tensor.name = renamed[tensor.name]
        weights.setdefault(tensor.name, tensor)
    for node in later.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    missing = [v for v in first.graph.output if v.name not in {own.name for own in later.graph.output}]
    copies = [helper.make_node("Identity", [v.name.replace("present", "past_key_values")], [v.name]) for v in missing]
    kept = {v.name: v for v in later.graph.output} | {v.name: v for v in missing}
    outputs = [kept[v.name] for v in first.graph.output]
    choice = helper.make_node(
        "If",
        ["use_cache_branch"],
        [v.name for v in first.graph.output],
        name="optimum::if",
        then_branch=_branch("then", [*later.graph.node, *copies], outputs),
        else_branch=_branch("else", first.graph.node, first.graph.output),
    )
    inputs = {v.name: v for graph in (first.graph, later.graph) for v in graph.input}
    flag = helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1])
    graph = helper.make_graph([choice], "merged", [*inputs.values(), flag], first.graph.output, [*weights.values()])
    return helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)


def _branch(name: str, nodes: Iterable[onnx.NodeProto], outputs: Iterable[onnx.ValueInfoProto]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], list(outputs))
