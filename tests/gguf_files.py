"""Tiny GGUF files as llama.cpp's converter writes them, by the gguf package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, dequantize, get_tensor_name_map, quantize

F32 = GGMLQuantizationType.F32
Q4_K = GGMLQuantizationType.Q4_K
SUFFIXES = (".weight", ".bias")


def write_gguf(
    path: Path,
    model: Any,
    *,
    kind: GGMLQuantizationType = F32,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
) -> Path:
    """A file of a model of transformers, whose own weights become what the file's types can hold.

    ``kind`` is the type of matrices. ``metadata`` and ``tensors`` stand in for the right ones; None takes one out.
    """
    arch = "qwen2" if model.config.model_type == "qwen2" else "llama"
    blocks = {name: _stored(array, kind) for name, array in _arrays(model).items()}
    with torch.no_grad():
        for name, (block, block_kind) in blocks.items():
            model.get_parameter(name).copy_(torch.from_numpy(np.array(dequantize(block, block_kind))))
    names = get_tensor_name_map(next(a for a, name in MODEL_ARCH_NAMES.items() if name == arch), 9)
    found = {
        names.get_name(name, SUFFIXES): (_interleaved(name, block, model.config) if arch == "llama" else block, kind)
        for name, (block, kind) in blocks.items()
    }
    changed = {name: None if array is None else (array, None) for name, array in (tensors or {}).items()}
    return write_file(path, _metadata(arch, model.config) | dict(metadata or {}), found | changed)


def write_file(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> Path:
    """A file of these keys and, by name, arrays with their types; those that are None are left out."""
    writer = GGUFWriter(path, metadata.get("general.architecture") or "none")
    for key, value in metadata.items():
        if key != "general.architecture" and value is not None:
            _add(writer, key, value)
    for name, stored in (tensors or {}).items():
        if stored is not None:
            writer.add_tensor(name, stored[0], raw_dtype=stored[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    add = {bool: "add_bool", int: "add_uint32", float: "add_float32", str: "add_string", list: "add_array"}
    getattr(writer, add[type(value)])(key, value)


def _arrays(model: Any) -> dict[str, np.ndarray]:
    tied = model.config.tie_word_embeddings
    state = model.state_dict().items()
    return {name: tensor.numpy() for name, tensor in state if not (tied and name == "lm_head.weight")}


def _stored(array: np.ndarray, kind: GGMLQuantizationType) -> tuple[np.ndarray, GGMLQuantizationType]:
    if array.ndim == 1:
        return array, F32
    return (_random_q4_k(array.shape) if kind == Q4_K else quantize(array, kind)), kind


def _random_q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of any values, since the package cannot quantize so: two float16 factors, then 6-bit and 4-bit numbers."""
    rng = np.random.default_rng(shape[0])
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, 144), dtype=np.uint8)
    blocks[..., :4] = np.array([1e-4, 7e-4], np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _interleaved(name: str, rows: np.ndarray, config: Any) -> np.ndarray:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return rows
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


def _metadata(arch: str, config: Any) -> dict[str, Any]:
    values = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": getattr(config, "head_dim", None),
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "vocab_size": config.vocab_size,
    }
    return {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in values.items()}}
