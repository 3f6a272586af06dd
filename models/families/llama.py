"""Llama, Mistral and Qwen2 checkpoints, which share their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.models.config import read_config
from onnxsmith.models.families.decoder import decoder_plan
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.llama import Llama, LlamaConfig
from onnxsmith.models.names import NameTable

_ROOT = r"(?:model\.)?"
_LAYER = _ROOT + r"layers\.(\d+)\."
_KIND = r"\.(weight|bias)"
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "output"}

NAMES = NameTable(
    {
        _ROOT + r"embed_tokens\.weight": r"token.weight",
        _ROOT + r"norm\.weight": r"norm.weight",
        _LAYER + r"input_layernorm\.weight": r"layers.\1.attention_norm.weight",
        _LAYER + r"post_attention_layernorm\.weight": r"layers.\1.feed_forward_norm.weight",
        **{_LAYER + rf"self_attn\.{x}_proj" + _KIND: rf"layers.\1.attention.{y}.\2" for x, y in _ATTENTION.items()},
        _LAYER + r"mlp\.(gate|up|down)_proj" + _KIND: r"layers.\1.feed_forward.\2.\3",
    },
    unused=(_LAYER + r"self_attn\.rotary_emb\.inv_freq",),  # computed from the config
)


def plan(config: Mapping[str, Any]) -> Plan:
    """The decoder that a Llama-like config asks for. Raises BadInput for a variant that is not supported."""
    theta, scaling = _rope(config)
    biased = config.get("attention_bias") is True
    sizes = read_config(
        LlamaConfig,
        config,
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=biased or config.get("model_type") == "qwen2",
        output_bias=biased,
        window=_window(config),
    )
    return decoder_plan(config, Llama(sizes), NAMES, tied=sizes.tie_word_embeddings)


def _window(config: Mapping[str, Any]) -> int | None:
    """How many tokens a token sees. Qwen2 has a switch for it, and may leave the first layers without one."""
    window = config.get("sliding_window")
    if window is None or config.get("use_sliding_window") is False:
        return None
    if type(window) is not int or window < 1:
        raise BadInput(f"config.json has sliding_window = {window!r}; a positive integer was expected")
    if config.get("use_sliding_window") and config.get("max_window_layers", 28) != 0:
        raise BadInput("config.json gives a sliding window to some layers only; all or none are supported")
    return window


def _rope(config: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    """The base and the scaling of rotary positions: ``rope_parameters``, or ``rope_theta`` and ``rope_scaling``."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise BadInput(f"config.json has {scaling!r} as its rope scaling; an object was expected")
    if scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1)) != 1:
        raise BadInput(
            "config.json rotates a part of each head (partial_rotary_factor); only whole heads are supported"
        )
    theta = scaling.get("rope_theta", config.get("rope_theta", 10000.0))
    if type(theta) not in (int, float) or theta <= 0:
        raise BadInput(f"config.json has rope_theta = {theta!r}; a positive number was expected")
    length = config.get("max_position_embeddings")
    return float(theta), {"original_max_position_embeddings": length, **scaling}
