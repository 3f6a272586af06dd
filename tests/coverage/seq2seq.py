"""Families of the transformers library with an encoder and a decoder."""

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
    Input,
    Output,
    ids,
    mask,
)
from tests.coverage.library import Library

_SEQ2SEQ = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}
_WHISPER = {**_SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": POSITIONS}
_STATES = (Output("last_hidden_state"),)


def _seq2seq(name: str, model: str, config: str, settings: Mapping[str, Any], *, pad: int = 1, **rest: Any) -> Family:
    return Family(
        name,
        Library(model, config, settings),
        (
            ids(length="source", pad=pad),
            mask(length="source"),
            ids("decoder_input_ids", "target", pad=pad),
            mask("decoder_attention_mask", "target"),
        ),
        (Output("last_hidden_state", "decoder_attention_mask"),),
        **rest,
    )


FAMILIES = (
    _seq2seq(
        "bart", "BartModel", "BartConfig", _SEQ2SEQ, gate=True, sites=Expected(3 * LAYERS, 5 * LAYERS + 2, 2 * LAYERS)
    ),
    _seq2seq("mbart", "MBartModel", "MBartConfig", _SEQ2SEQ, sites=Expected(3 * LAYERS, 5 * LAYERS + 4, 2 * LAYERS)),
    _seq2seq(
        "marian",
        "MarianModel",
        "MarianConfig",
        {**_SEQ2SEQ, "activation_function": "swish"},
        gate=True,
        sites=Expected(3 * LAYERS, 5 * LAYERS, 2 * LAYERS),
    ),
    _seq2seq(
        "pegasus", "PegasusModel", "PegasusConfig", _SEQ2SEQ, sites=Expected(3 * LAYERS, 5 * LAYERS + 2, 2 * LAYERS)
    ),
    _seq2seq(
        "t5",
        "T5Model",
        "T5Config",
        {
            "d_model": HIDDEN,
            "d_kv": HEAD,
            "d_ff": INNER,
            "num_layers": SEVERAL,
            "num_heads": HEADS,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        },
        pad=0,
        attention=("eager",),
        gate=True,
        sites=Expected(3 * SEVERAL, 5 * SEVERAL + 2, 2 * SEVERAL),
    ),
    Family(
        "whisper-encoder",
        Library("WhisperModel", "WhisperConfig", _WHISPER, part="encoder"),
        (Input("input_features", ("batch", 8, 20)),),
        _STATES,
        Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
        gate=True,
    ),
    Family(
        "whisper-decoder",
        Library("WhisperModel", "WhisperConfig", _WHISPER, part="decoder"),
        (
            ids(length="target", pad=1),
            mask(length="target"),
            Input("encoder_hidden_states", ("batch", 10, HIDDEN)),
        ),
        (Output("last_hidden_state", "attention_mask"),),
        Expected(2 * LAYERS, 3 * LAYERS + 1, LAYERS),
        gate=True,
    ),
)
