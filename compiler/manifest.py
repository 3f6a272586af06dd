"""What an artifact's manifest says of a model's inputs, outputs and cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler.reads import step_bytes
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.engine.values import dims


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
