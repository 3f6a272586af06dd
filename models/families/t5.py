"""T5 checkpoints as Hugging Face names them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.models.config import class_name, read_config
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.layers import ACTIVATIONS
from onnxsmith.models.names import NameTable
from onnxsmith.models.parts import seq2seq_tasks, text_encoder_task
from onnxsmith.models.t5 import T5, T5Config, T5Encoder

_SIDE = r"(encoder|decoder)\."
_BLOCK = _SIDE + r"block\.(\d+)\.layer\."
_OURS = r"\1.layers.\2."
_TOKENS = r"shared\.weight|(?:encoder|decoder)\.embed_tokens\.weight"
_PARTS = {
    r"0\.layer_norm": "attention_norm",
}
for _letter, _part in {"q": "query", "k": "key", "v": "value", "o": "output"}.items():
    _PARTS[rf"0\.SelfAttention\.{_letter}"] = f"attention.{_part}"
    _PARTS[rf"1\.EncDecAttention\.{_letter}"] = f"cross_attention.{_part}"
# The feed-forward network comes last: it is part 1 in the encoder, and part 2 after cross-attention in the decoder.
_LAST = {"encoder": 1, "decoder": 2}
_FEED_FORWARD = {
    r"DenseReluDense\.wi": "feed_forward.up",
    r"DenseReluDense\.wi_0": "feed_forward.gate",
    r"DenseReluDense\.wi_1": "feed_forward.up",
    r"DenseReluDense\.wo": "feed_forward.down",
    r"layer_norm": "feed_forward_norm",
}
# The plain model has no head of its own: the embedding table is.
_CLASSES = ("", "T5Model", "T5ForConditionalGeneration", "T5WithLMHeadModel", "T5EncoderModel")
_ROWS = {
    **{_BLOCK + theirs + r"\.weight": _OURS + ours + ".weight" for theirs, ours in _PARTS.items()},
    **{
        rf"{side}\.block\.(\d+)\.layer\.{part}\.{theirs}\.weight": rf"{side}.layers.\1.{ours}.weight"
        for side, part in _LAST.items()
        for theirs, ours in _FEED_FORWARD.items()
    },
    r"decoder\.block\.(\d+)\.layer\.1\.layer_norm\.weight": r"decoder.layers.\1.cross_norm.weight",
    _SIDE
    + r"block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.weight": r"\1_embeddings.position.table.weight",
    _SIDE + r"final_layer_norm\.weight": r"\1.norm.weight",
}
# Early checkpoints have a bias for cross-attention, which nothing uses.
_UNUSED = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)

TIED = NameTable(
    {_TOKENS + r"|lm_head\.weight": "token.weight", **_ROWS}, unused=_UNUSED, tied=(_TOKENS, r"lm_head\.weight")
)
UNTIED = NameTable(
    {_TOKENS: "token.weight", r"lm_head\.weight": "head.weight", **_ROWS}, unused=_UNUSED, tied=(_TOKENS,)
)


def plan(config: Mapping[str, Any]) -> Plan:
    """The generator, or the encoder alone, that a T5 config asks for, of version 1.0 or 1.1.

    Raises BadInput for a config that is none.
    """
    if (head := class_name(config)) not in _CLASSES:
        raise BadInput(f"config.json asks for the head {head!r}; known are {', '.join(filter(None, _CLASSES))}")
    gated, activation = _feed_forward(config)
    tied = config.get("tie_word_embeddings") is not False
    # Version 1.1 neither ties nor scales; newer configs tie everything, and say of the scale what it was.
    scaled = config.get("scale_decoder_outputs", tied) is not False
    given = ChainMap(config, {"relative_attention_max_distance": 128})  # type: ignore[arg-type]  # early ones lack it
    sizes = read_config(T5Config, given, gated=gated, activation=activation, tied_head=tied, scaled_head=scaled)
    if head == "T5EncoderModel":
        return Plan(T5Encoder(sizes), TIED, (text_encoder_task(sizes.d_model, None),))
    tasks = seq2seq_tasks(sizes.vocab_size, sizes.d_model, sizes.cache)
    return Plan(T5(sizes), _names(tied=tied, gated=gated), tasks)


def _names(*, tied: bool, gated: bool) -> NameTable:
    """A gated network has ``wi_0`` and ``wi_1`` where the plain one has ``wi``: what it does not have comes last."""
    names, other = TIED if tied else UNTIED, r"\.wi\.weight" if gated else r"\.wi_1\.weight"
    return replace(names, rename=dict(sorted(names.rename.items(), key=lambda row: row[0].endswith(other))))


def _feed_forward(config: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the network is gated, and its activation: "relu", "gated-gelu", "gated-silu" and so on."""
    name = config.get("feed_forward_proj", "relu")
    activation = str(name).removeprefix("gated-")
    if activation not in ACTIVATIONS:
        raise BadInput(f"config.json has feed_forward_proj = {name!r}; an activation, or gated-one, was expected")
    return name != activation, "gelu_new" if name == "gated-gelu" else activation
