"""What an artifact's manifest says of a model's inputs, outputs, cache and text side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxsmith.compiler.reads import step_bytes
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.engine.values import dims

if TYPE_CHECKING:
    from onnxsmith.models.text import TextFiles

TOKENIZER, CHAT_TEMPLATE = "tokenizer.json", "chat_template.jinja"


def cache_entry(model: ir.Model) -> dict[str, Any]:
    """What the manifest says of a model with a cache; its inputs and outputs are no longer those of the source."""
    cache = recorded(model)
    if cache is None:
        return {}
    graph = model.graph
    return {
        "cache": cache.to_json(),
        "step_bytes": step_bytes(model),
        **({"greedy_step_bytes": step_bytes(model, greedy=True)} if cache.greedy is not None else {}),
        "inputs": specs(graph.inputs),
        "outputs": specs(graph.outputs),
    }


def part_entry(model: ir.Model) -> dict[str, Any]:
    """What the manifest says of one of an encoder-decoder's two models."""
    task = "decoder-with-past" if recorded(model) else "encoder-with-present"
    return {"task": task, "inputs": specs(model.graph.inputs), "outputs": specs(model.graph.outputs)}


def specs(values: Iterable[ir.Value]) -> list[dict[str, Any]]:
    """Inputs that must be given, or outputs, as an export's task lists them."""
    own = [(v, v.dtype) for v in values if v.dtype is not None and not v.is_initializer()]
    return [{"name": v.name, "dtype": str(dtype.numpy()), "dims": dims(v)} for v, dtype in own]


def text_entry(text: TextFiles | None) -> dict[str, Any]:
    """What the manifest says of the text side; :func:`text_files` are the files that it names."""
    return {
        "tokenizer": TOKENIZER if text else None,
        "chat_template": CHAT_TEMPLATE if text and text.chat_template else None,
        "special_tokens": dict(text.special_tokens) if text else {},
        "padding_side": text.padding_side if text else "right",
    }


def text_files(text: TextFiles | None) -> dict[str, bytes]:
    """The contents of the text side's files by name."""
    files = {TOKENIZER: text.tokenizer, CHAT_TEMPLATE: text.chat_template} if text else {}
    return {name: contents.encode(errors="replace") for name, contents in files.items() if contents}
