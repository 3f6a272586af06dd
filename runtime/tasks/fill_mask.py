"""Filling gaps in texts. Devlin et al. 2018, arXiv:1810.04805, section 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.tasks.rows import check_task, rows, softmax
from onnxsmith.runtime.tokenize import TextEncoder, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

TASK = "fill-mask"


@dataclass(frozen=True)
class Filling:
    """A ``token`` for a gap, its text, its probability, and the text with it; other gaps stay open."""

    score: float
    token: int
    token_str: str
    sequence: str


def fill_mask(model: LoadedModel, texts: Sequence[str], *, top_k: int = 5) -> list[list[list[Filling]]]:
    """The best tokens for each gap of each text: [texts][gaps][top_k], the likeliest first.

    A gap is written as the tokenizer's mask token, such as [MASK].

    Raises:
        BadInput: a model of another task or without a mask token, or a text without a gap. BadUsage: no tokens wanted.
    """
    check_task(model, TASK)
    mask = model.special_tokens.get("mask")
    if mask is None:
        raise BadInput(f"{model.artifact.model}: the tokenizer has no mask token, so there are no gaps to fill")
    if top_k < 1:
        raise BadUsage(f"top_k must be at least 1, found {top_k}")
    encoder = text_encoder(model.artifact)
    tokens = encoder.encode(texts)
    for text, one in zip(texts, tokens, strict=True):
        if mask not in one.ids:
            raise BadInput(f"no gap in {text[:60]!r}; write {encoder.text_of(mask)} where a word is wanted")
    found = []
    for one, outputs in zip(tokens, rows(model, encoder, tokens), strict=True):
        gaps = [place for place, id in enumerate(one.ids) if id == mask]
        (logits,) = outputs.values()
        found.append([_fillings(encoder, one.ids, gap, softmax(logits[gap]), top_k, len(gaps) == 1) for gap in gaps])
    return found


def _fillings(
    encoder: TextEncoder, ids: Sequence[int], gap: int, chances: NDArray[np.float64], top_k: int, alone: bool
) -> list[Filling]:
    """Without special tokens in the text where the gap is alone: else the other gaps would not be seen."""
    made = []
    for id in np.argsort(-chances, kind="stable")[:top_k].tolist():
        text = encoder.decode([*ids[:gap], id, *ids[gap + 1 :]], skip_special_tokens=alone)
        made.append(Filling(float(chances[id]), id, encoder.decode([id], skip_special_tokens=False), text))
    return made
