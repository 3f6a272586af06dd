"""Small inputs that the tests build: a Hugging Face BERT folder and an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 128,
}


def bert_tensors() -> dict[str, np.ndarray]:
    """Random weights under the names that Hugging Face gives them."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], hidden),
        **_norm("embeddings.LayerNorm", hidden),
        **_linear("pooler.dense", hidden, hidden),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{prefix}.attention.{name}", hidden, hidden)
        shapes |= _norm(f"{prefix}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{prefix}.intermediate.dense", inner, hidden)
        shapes |= _linear(f"{prefix}.output.dense", hidden, inner)
        shapes |= _norm(f"{prefix}.output.LayerNorm", hidden)
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write_bert(
    folder: Path, *, config: dict[str, Any] | None = None, tensors: dict[str, np.ndarray] | None = None
) -> Path:
    """A Hugging Face folder with ``config`` on top of CONFIG and ``tensors`` in place of the right ones."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    save_file(bert_tensors() if tensors is None else tensors, folder / "model.safetensors")
    return folder


def write_mlp(path: Path, *, location: str | None = None, name: str = "x") -> Path:
    """A graph of one product, [N, 4] x [4, 4]; its weight is external at ``location`` when one is given."""
    weight = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", [name, "w"], ["y"], name="product")],
        "mlp",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    if location is not None:
        onnx.external_data_helper.set_external_data(weight, location, offset=0, length=64)
        model.graph.initializer[0].CopyFrom(weight)
        model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
