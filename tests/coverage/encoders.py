"""Families of the transformers library that encode: text, images and sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.coverage.family import (
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
from tests.coverage.library import BERT, LAYERED, NO_POOLER, Library

_VISION = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": 16,
    "patch_size": 8,
}
_PIXELS = (Input("pixel_values", ("batch", 3, 16, 16)),)
_STATES = (Output("last_hidden_state"),)


def _encoder(name: str, model: str, config: str, settings: Mapping[str, Any], *, pad: int = 0, **rest: Any) -> Family:
    arguments = rest.pop("arguments", {})
    return Family(
        name,
        Library(model, config, {**settings, "pad_token_id": pad}, arguments=arguments),
        (ids(pad=pad), mask()),
        (Output("last_hidden_state", "attention_mask"),),
        **rest,
    )


FAMILIES = (
    _encoder(
        "bert",
        "BertModel",
        "BertConfig",
        {**BERT, **LAYERED},
        arguments=NO_POOLER,
        gate=True,
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _encoder(
        "roberta",
        "RobertaModel",
        "RobertaConfig",
        BERT,
        pad=1,
        arguments=NO_POOLER,
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _encoder(
        "xlm-roberta",
        "XLMRobertaModel",
        "XLMRobertaConfig",
        BERT,
        pad=1,
        arguments=NO_POOLER,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _encoder(
        "distilbert",
        "DistilBertModel",
        "DistilBertConfig",
        {
            "dim": HIDDEN,
            "hidden_dim": INNER,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "max_position_embeddings": POSITIONS,
        },
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _encoder(
        "albert",
        "AlbertModel",
        "AlbertConfig",
        {**BERT, **LAYERED, "embedding_size": 16, "hidden_act": "gelu_new"},
        arguments=NO_POOLER,
        gate=True,
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _encoder(
        "electra",
        "ElectraModel",
        "ElectraConfig",
        {**BERT, "embedding_size": 16},
        gate=True,
        sites=Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    _encoder(
        "mpnet",
        "MPNetModel",
        "MPNetConfig",
        {**BERT, **LAYERED},
        pad=1,
        arguments=NO_POOLER,
        gate=True,
        attention=("eager",),
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _encoder(
        "deberta-v2",
        "DebertaV2Model",
        "DebertaV2Config",
        {
            **BERT,
            **LAYERED,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",  # a norm of weights alone: no site
            "position_biased_input": False,
        },
        attention=("eager",),
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    _encoder(
        "modernbert",
        "ModernBertModel",
        "ModernBertConfig",
        {
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": SEVERAL,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "local_attention": 6,
            "global_attn_every_n_layers": 2,
            "reference_compile": False,
        },
        sites=Expected(SEVERAL, 2 * SEVERAL + 1, SEVERAL),
    ),
    Family(
        "vit",
        Library("ViTModel", "ViTConfig", _VISION, arguments=NO_POOLER),
        _PIXELS,
        _STATES,
        Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
        gate=True,
    ),
    Family(
        "clip-vision",
        Library("CLIPVisionModel", "CLIPVisionConfig", _VISION),
        _PIXELS,
        _STATES,
        Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    Family(
        "clip-text",
        Library("CLIPTextModel", "CLIPTextConfig", {**BERT, "eos_token_id": 2}),
        (ids(), mask()),
        (Output("last_hidden_state", "attention_mask"),),
        Expected(LAYERS, 2 * LAYERS + 1, LAYERS),
    ),
    Family(
        "wav2vec2",
        Library(
            "Wav2Vec2Model",
            "Wav2Vec2Config",
            {
                **BERT,
                "conv_dim": (16, 16),
                "conv_kernel": (10, 3),
                "conv_stride": (5, 2),
                "num_feat_extract_layers": 2,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        ),
        (Input("input_values", ("batch", "samples")),),
        _STATES,
        Expected(LAYERS, 2 * LAYERS + 2, LAYERS),
    ),
)
