"""GPT-2, Llama, Mistral and Qwen2 give what the transformers library gives for the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from tests.checkpoints import write_json
from tests.parity import batches, check, ours, randomized

GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
LLAMA = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2, wider": ("GPT2LMHeadModel", GPT2 | {"n_inner": 40, "activation_function": "relu"}),
    "gpt2, classes": ("GPT2ForSequenceClassification", GPT2 | {"num_labels": 3}),
    "gpt2, bare": ("GPT2Model", GPT2),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama, one key head, tied": ("LlamaForCausalLM", LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama, own head size, biases": (
        "LlamaForCausalLM",
        LLAMA | {"head_dim": 12, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, linear": ("LlamaForCausalLM", LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama, llama3": ("LlamaForCausalLM", LLAMA | {"rope_scaling": LLAMA3}),
    "llama, classes": ("LlamaForSequenceClassification", LLAMA | {"num_labels": 3}),
    "llama, bare": ("LlamaModel", LLAMA),
    "mistral, window": ("MistralForCausalLM", LLAMA | {"sliding_window": 3}),
    "mistral, no window": ("MistralForCausalLM", LLAMA | {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", LLAMA),
    "qwen2, window": (
        "Qwen2ForCausalLM",
        LLAMA | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0},
    ),
}


def build(variant: str) -> Any:
    name, sizes = VARIANTS[variant]
    family = next(name[: name.index(mark)] for mark in ("LMHead", "For", "Model") if mark in name)
    config = getattr(transformers, f"{family}Config")(**{"pad_token_id": 0, **sizes})
    return randomized(getattr(transformers, name)(config))


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs(tmp_path: Path, variant: str) -> None:
    theirs = build(variant)
    found = ours(theirs, tmp_path)
    for batch in batches(99):
        check(found, theirs, batch)


def test_weights_in_shards(tmp_path: Path) -> None:
    theirs = build("llama")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    found = load_checkpoint(tmp_path)
    assert [path.name for path in found.weights] == sorted(path.name for path in tmp_path.glob("*.safetensors"))
    check(found, theirs, next(batches(99)))


def changed(folder: Path, variant: str, **values: Any) -> Path:
    """A checkpoint with another config."""
    build(variant).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | values)
    return folder


@pytest.mark.parametrize(
    ("variant", "values", "mention"),
    [
        ("gpt2", {"n_head": 5}, "5 heads"),
        ("gpt2", {"n_embd": None}, "n_embd"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"vocab_size": 100}, r"\[99, 32\]"),
        ("gpt2", {"n_inner": 40}, r"c_fc"),
        ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, "GPT2DoubleHeadsModel"),
        ("llama", {"num_key_value_heads": 3}, "3 groups"),
        ("llama", {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 1}, "even head size"),
        ("llama", {"sliding_window": -1}, "sliding_window"),
        ("llama", {"rope_parameters": [1]}, "rope scaling"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "'longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": "2"}}, "factor"),
        ("llama", {"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("qwen2, window", {"max_window_layers": 1}, "some layers"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ("llama", {"attention_bias": True}, "lacks 8 tensors"),
        ("llama", {"model_type": "qwen2"}, "lacks 6 tensors"),
    ],
)
def test_a_config_that_cannot_be_followed(tmp_path: Path, variant: str, values: dict[str, Any], mention: str) -> None:
    with pytest.raises(BadInput, match=mention) as error:
        load_checkpoint(changed(tmp_path, variant, **values))
    assert "\n" not in str(error.value)


def test_a_padded_row_of_nothing_is_finite(tmp_path: Path) -> None:
    found = ours(build("llama"), tmp_path)
    ids = torch.arange(10).reshape(2, 5)
    mask = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    assert torch.isfinite(found.module(ids, mask)).all()
