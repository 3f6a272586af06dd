"""GGUF files of Llama, Mistral (which is stored as Llama) and Qwen2: their config, names and order of rows.

Keys and names are those of llama.cpp's converter, https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.gguf_file import GgufFile

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

# Keys of the file, behind the architecture's name and a dot, with those of config.json.
_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "vocab_size": "vocab_size",
}
_NUMBERS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta"}
_OPTIONAL = {"attention.head_count_kv", "attention.key_length", "attention.sliding_window", "rope.freq_base"}
_REPEATED = ("attention.value_length", "rope.dimension_count")  # say the head size once more
_SCALING = {
    "rope.scaling.factor": "factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
_SCALED_LENGTH = "rope.scaling.original_context_length"
_ORIGIN = ("rope.scaling.finetuned", "tensor_data_layout")  # tell where the model came from and change nothing
_KNOWN = {*_SIZES, *_NUMBERS, *_REPEATED, *_SCALING, "rope.scaling.type", _SCALED_LENGTH, *_ORIGIN}

# Modules of ours and what a file calls them; those of a layer stand behind "blk.", its number and a dot.
_NAMES = {"decoder.token": "token_embd", "decoder.norm": "output_norm", "head": "output"}
_LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def gguf_config(file: GgufFile) -> dict[str, Any]:
    """The config.json that the same model would have.

    Raises BadInput for another architecture, a key that is missing, of a wrong value or not known, a rope scaling that
    is none of linear and yarn, and for Llama 3's table of frequencies.
    """
    kind = file.need("general.architecture", str)
    _check_supported(file, kind)
    config = {
        **_sizes(file, kind),
        "model_type": kind,
        "architectures": [_CLASSES[kind]],
        "rope_scaling": _rope_scaling(file),
        "attention_bias": "blk.0.attn_output.bias" in file.shapes,
        "mlp_bias": "blk.0.ffn_down.bias" in file.shapes,
        "tie_word_embeddings": "output.weight" not in file.shapes,
    }
    _check_head_size(file, config)
    return config


def _check_supported(file: GgufFile, kind: str) -> None:
    if kind not in _CLASSES:
        raise BadInput(f"{file.path} is of architecture {kind!r}; one of {', '.join(_CLASSES)} can be read")
    if "rope_freqs.weight" in file.shapes:
        hint = "export the model from its Hugging Face folder"
        raise BadInput(f"{file.path} has rope_freqs.weight, a table of rotary frequencies that cannot be read; {hint}")
    for key, value in file.metadata.items():
        if key.startswith(f"{kind}.") and key.removeprefix(f"{kind}.") not in _KNOWN and value:  # 0 asks for nothing
            raise BadInput(f"{file.path} has the key {key!r}, which is not supported")


def _sizes(file: GgufFile, kind: str) -> dict[str, Any]:
    """Sizes and numbers under the keys of config.json, those that there are."""
    found = {key: _positive(file, key, int) for key in _SIZES} | {key: _positive(file, key, float) for key in _NUMBERS}
    found["vocab_size"] = found["vocab_size"] or len(file.items("tokenizer.ggml.tokens", str))
    if missing := [f"{kind}.{key}" for key, value in found.items() if not value and key not in _OPTIONAL]:
        raise BadInput(f"{file.path} lacks {', '.join(missing)}; convert the model again")
    if (last := f"blk.{found['block_count'] - 1}.attn_norm.weight") not in file.shapes:  # no endless model is built
        raise BadInput(f"{file.path} lacks tensor {last!r} for {kind}.block_count = {found['block_count']}")
    return {ours: found[key] for key, ours in (_SIZES | _NUMBERS).items() if found[key]}


def _positive(file: GgufFile, key: str, kind: type[Any]) -> Any:
    """A number above 0; None when there is none, or 0, which stands for that."""
    key = f"{file.metadata['general.architecture']}.{key}"
    value = file.get(key, kind)
    if value is not None and not value >= 0:
        raise BadInput(f"{file.path} has {key} = {value!r}; a positive number was expected")
    return value or None


def _rope_scaling(file: GgufFile) -> dict[str, Any]:
    numbers = {ours: found for key, ours in _SCALING.items() if (found := _positive(file, key, float)) is not None}
    key = f"{file.metadata['general.architecture']}.rope.scaling.type"
    kind = file.get(key, str) or ("linear" if "factor" in numbers else "none")  # llama.cpp's default
    if kind == "none":
        return {}
    if kind not in ("linear", "yarn"):
        raise BadInput(f"{file.path} has {key} = {kind!r}; none, linear and yarn are supported")
    if "factor" not in numbers:
        raise BadInput(f"{file.path} has {key} = {kind!r} without a factor; convert the model again")
    length = _positive(file, _SCALED_LENGTH, int)
    return {"rope_type": kind, **numbers} | ({"original_max_position_embeddings": length} if length else {})


def _check_head_size(file: GgufFile, config: Mapping[str, Any]) -> None:
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for key in _REPEATED:
        if (_positive(file, key, int) or size) != size:
            name = f"{config['model_type']}.{key}"
            raise BadInput(f"{file.path} has {name} = {file.metadata[name]}; the head size {size} was expected")


def load_gguf(module: nn.Module, file: GgufFile, config: Mapping[str, Any]) -> None:
    """Fill a language model that lives on the meta device, with a ``config`` of ``gguf_config``.

    Names and shapes are checked before anything is dequantized.

    Raises BadInput for a tensor that is missing, extra, of another shape, or of a type that cannot be dequantized.
    """
    expected = module.state_dict()
    names = {ours: _gguf_name(ours) for ours in expected}
    _check_names(file, names.values())
    for ours, name in names.items():
        if file.shapes[name] != (wanted := tuple(expected[ours].shape)):
            found = list(file.shapes[name])
            raise BadInput(f"{file.path} has tensor {name!r} of shape {found}; its metadata asks for {list(wanted)}")
    module.load_state_dict({ours: _tensor(file, name, config) for ours, name in names.items()}, assign=True)


def _check_names(file: GgufFile, wanted: Iterable[str]) -> None:
    expected = set(wanted)
    if missing := sorted(expected - file.shapes.keys()):
        raise BadInput(f"{file.path} lacks {len(missing)} tensors, first {missing[0]!r}; convert the model again")
    if extra := sorted(file.shapes.keys() - expected):
        hint = "the architecture has no place for them"
        raise BadInput(f"{file.path} has {len(extra)} tensors too many, first {extra[0]!r}; {hint}")


def _gguf_name(ours: str) -> str:
    module, _, kind = ours.rpartition(".")
    if (match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.*)", module)) is not None:
        return f"blk.{match[1]}.{_LAYER_NAMES[match[2]]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


def _tensor(file: GgufFile, name: str, config: Mapping[str, Any]) -> Tensor:
    found = file.tensor(name)
    if config["model_type"] != "llama":
        return found
    heads = config["num_attention_heads"]
    if ".attn_q." in name:
        return _halves(found, heads)
    return _halves(found, config.get("num_key_value_heads", heads)) if ".attn_k." in name else found


def _halves(rows: Tensor, heads: int) -> Tensor:
    """A Llama's file has rows 2i and 2i + 1 of a head rotated together, ours has rows i and i + D/2; [H*D, ...]."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
