"""Families of the transformers library that decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.coverage.family import (
    HEAD,
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    POSITIONS,
    SEVERAL,
    Expected,
    Family,
    Output,
    ids,
    mask,
)
from tests.coverage.library import BERT, LAYERED, Library

_LLAMA = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "head_dim": HEAD,
    "pad_token_id": 0,
}


def _decoder(name: str, model: str, config: str, settings: Mapping[str, Any], **rest: Any) -> Family:
    return Family(
        name,
        Library(model, config, settings),
        (ids(), mask()),
        (Output("logits", "attention_mask"),),
        **rest,
    )


FAMILIES = (
    _decoder(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS, "n_inner": INNER},
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _decoder(
        "gpt-neo",
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "hidden_size": HIDDEN,
            "num_layers": SEVERAL,
            "num_heads": HEADS,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "intermediate_size": INNER,
            "max_position_embeddings": POSITIONS,
        },
        attention=("eager",),
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _decoder(
        "gpt-neox",
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {**BERT, "rotary_pct": 0.5},
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _decoder(
        "gpt-j",
        "GPTJForCausalLM",
        "GPTJConfig",
        {
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_positions": POSITIONS,
            "rotary_dim": 4,
            "n_inner": INNER,
        },
        attention=("eager",),
        sites=Expected(LAYERS, LAYERS + 1, LAYERS),
    ),
    _decoder(
        "opt",
        "OPTForCausalLM",
        "OPTConfig",
        {
            "hidden_size": HIDDEN,
            "ffn_dim": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "word_embed_proj_dim": HIDDEN,
        },
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _decoder(
        "bloom",
        "BloomForCausalLM",
        "BloomConfig",
        {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS},
        attention=("eager",),
        sites=Expected(LAYERS, 2 * LAYERS + 2, LAYERS),
    ),
    _decoder(
        "llama",
        "LlamaForCausalLM",
        "LlamaConfig",
        {**_LLAMA, **LAYERED},
        gate=True,
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _decoder(
        "mistral",
        "MistralForCausalLM",
        "MistralConfig",
        {**_LLAMA, "sliding_window": 4},
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _decoder(
        "qwen2", "Qwen2ForCausalLM", "Qwen2Config", _LLAMA, gate=True, sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS)
    ),
    _decoder("qwen3", "Qwen3ForCausalLM", "Qwen3Config", _LLAMA, sites=Expected(LAYERS, 4 * LAYERS + 1, LAYERS)),
    _decoder(
        "phi",
        "PhiForCausalLM",
        "PhiConfig",
        {**_LLAMA, "partial_rotary_factor": 0.5},
        gate=True,
        sites=Expected(LAYERS, LAYERS + 1, LAYERS),
    ),
    _decoder(
        "gemma2",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_LLAMA, **LAYERED, "sliding_window": 4, "query_pre_attn_scalar": HEAD},
        attention=("eager",),
        sites=Expected(SEVERAL, 4 * SEVERAL + 1, SEVERAL),
    ),
    _decoder(
        "falcon",
        "FalconForCausalLM",
        "FalconConfig",
        {
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "ffn_hidden_size": INNER,
        },
        sites=Expected(LAYERS, LAYERS + 1, LAYERS),
    ),
)
