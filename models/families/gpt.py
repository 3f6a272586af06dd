"""GPT-2 checkpoints: query, key and value stand in one tensor, and weights are stored as [in, out]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxsmith.models.config import read_config
from onnxsmith.models.families.decoder import decoder_plan
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.gpt import Gpt, GptConfig
from onnxsmith.models.names import NameTable

_ROOT = r"(?:transformer\.)?"
_LAYER = _ROOT + r"h\.(\d+)\."
_KIND = r"\.(weight|bias)"

NAMES = NameTable(
    {
        _ROOT + r"wte\.weight": r"token.weight",
        _ROOT + r"wpe\.weight": r"position.weight",
        _ROOT + r"ln_f" + _KIND: r"norm.\1",
        _LAYER + r"ln_1" + _KIND: r"layers.\1.attention_norm.\2",
        _LAYER + r"ln_2" + _KIND: r"layers.\1.feed_forward_norm.\2",
        _LAYER + r"attn\.c_attn" + _KIND: tuple(rf"layers.\1.attention.{x}.\2" for x in ("query", "key", "value")),
        _LAYER + r"attn\.c_proj" + _KIND: r"layers.\1.attention.output.\2",
        _LAYER + r"mlp\.c_fc" + _KIND: r"layers.\1.feed_forward.up.\2",
        _LAYER + r"mlp\.c_proj" + _KIND: r"layers.\1.feed_forward.down.\2",
    },
    unused=(_LAYER + r"attn\.(?:masked_)?bias",),  # causal masks
    transposed=(_LAYER + r"(?:attn|mlp)\.c_\w+\.weight",),
)
_FIELDS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
_ONLY = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def plan(config: Mapping[str, Any]) -> Plan:
    """The GPT that a GPT-2 config asks for. Raises BadInput for another variant."""
    return decoder_plan(config, Gpt(read_config(GptConfig, config, _FIELDS, only=_ONLY)), NAMES)
