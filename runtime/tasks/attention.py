"""What a model attends to: the weights of every layer and head for a text, and for what is generated from it.

Shapes: L layers, H heads, S queries, T keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.embed import feeds_of
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.defaults import recommended
from onnxsmith.runtime.generation.generator import DEFAULT_NEW_TOKENS
from onnxsmith.runtime.generation.processors import processed, processors
from onnxsmith.runtime.tokenize import TextEncoder, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

_OUTPUT = re.compile(r"((?:encoder_|decoder_|cross_)?attentions)\.\d+")
_TARGET = "decoder_input_ids"


@dataclass(frozen=True)
class AttentionMap:
    """``weights`` float32 [L, H, S, T] of one kind of attention; rows sum to 1. Tokens stand along S and T."""

    kind: str
    weights: NDArray[np.float32]
    queries: tuple[str, ...]
    keys: tuple[str, ...]


def shows_attention(model: LoadedModel) -> bool:
    """Whether the weights are among the model's outputs."""
    return any(_OUTPUT.fullmatch(info.name) for info in model.outputs)


def attention_maps(model: LoadedModel, text: str, **settings: Any) -> list[AttentionMap]:
    """The weights for one text: "attentions", or of an encoder-decoder those of its encoder, decoder and between them.

    The decoder's are for the tokens that it reads while it generates greedily, its start token first. ``settings`` are
    those of ``GenerationConfig``, on top of what the checkpoint recommends.

    Raises:
        BadInput: the model does not give weights, has no tokenizer, or takes what no text gives.
    """
    where = model.artifact.folder or model.artifact.model
    if not shows_attention(model):
        raise BadInput(f"{where}: no attention weights among the outputs; export it with --attention-weights")
    encoder = text_encoder(model.artifact)
    (tokens,) = encoder.encode([text])
    names = [info.name for info in model.inputs]
    feeds = feeds_of(encoder.pad([tokens]), [name for name in names if not name.startswith("decoder_")])
    target: Sequence[int] = ()
    if _TARGET in names:
        target = _generated(model, feeds, recommended(model.manifest, source=True).overridden(settings))
        feeds |= _read(target)
    return _collected(model.run(feeds), _words(encoder, tokens.ids), _words(encoder, target))


def _generated(model: LoadedModel, feeds: dict[str, NDArray[Any]], config: GenerationConfig) -> list[int]:
    """The start token and what greedy decoding makes of it, all that is read to come to the last token."""
    wanted = config.max_new_tokens or DEFAULT_NEW_TOKENS
    limit = min(wanted, model.manifest.get("bounds", {}).get("decoder_sequence", wanted))
    steps, ids = processors(config, limit), [config.start]
    while True:
        logits = model.run(feeds | _read(ids))["logits"][:, -1]
        token = int(processed(logits, steps, [np.array(ids)], len(ids) - 1).argmax())
        if token in config.eos_token_id or len(ids) == limit:
            return ids
        ids.append(token)


def _read(ids: Sequence[int]) -> dict[str, NDArray[Any]]:
    target = np.array([ids], np.int64)
    return {_TARGET: target, "decoder_attention_mask": np.ones_like(target)}


def _words(encoder: TextEncoder, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(encoder.text_of, ids))


def _collected(
    outputs: dict[str, NDArray[Any]], source: tuple[str, ...], target: tuple[str, ...]
) -> list[AttentionMap]:
    """The layers of each kind together, in the order of the outputs."""
    layers: dict[str, list[NDArray[Any]]] = {}
    for name, weights in outputs.items():
        if (found := _OUTPUT.fullmatch(name)) is not None:
            layers.setdefault(found[1], []).append(weights[0])
    sides = {"decoder_attentions": (target, target), "cross_attentions": (target, source)}
    return [
        AttentionMap(kind, np.stack(some).astype(np.float32), *sides.get(kind, (source, source)))
        for kind, some in layers.items()
    ]
