"""What callers give to ``generate`` as ids: texts, ids, or a padded batch with its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.tokenize import TextEncoder

Prompts: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | NDArray[np.integer]
Ids: TypeAlias = list[list[int]]


def read_prompts(
    prompts: Prompts,
    encoder: TextEncoder | None,
    *,
    attention_mask: NDArray[Any] | None = None,
    add_special_tokens: bool = True,
    vocab_size: int | None = None,
) -> Ids:
    """The ids of each prompt, without padding.

    Args:
        prompts: A text or texts; ids of one or of several; or an array [B, S] that ``attention_mask`` [B, S] goes with.
        encoder: For texts.
        attention_mask: 0 at padding, wherever it stands.
        add_special_tokens: Whether texts get the tokens that the tokenizer puts around them.
        vocab_size: What ids are below, where it is known.

    Raises:
        BadInput: no prompt, one without a token, ids that are none or beyond the vocabulary, a mask of another shape,
            or texts without a tokenizer.
    """
    if len(prompts) == 0 and not isinstance(prompts, str):
        raise BadInput("expected at least one prompt, found none; give a text or token ids")
    if texts := _texts(prompts):
        if encoder is None:
            raise BadInput("no tokenizer beside this model; give it token ids instead of texts")
        return [list(tokens.ids) for tokens in encoder.encode(texts, add_special_tokens=add_special_tokens)]
    rows = [prompts] if np.ndim(prompts[0]) == 0 else prompts
    masks = [None] * len(rows) if attention_mask is None else np.atleast_2d(attention_mask)
    if len(masks) != len(rows):
        raise BadInput(f"expected an attention_mask of {len(rows)} rows, found {len(masks)}")
    return [_ids(row, mask, number, vocab_size) for number, (row, mask) in enumerate(zip(rows, masks, strict=True))]


def _texts(prompts: Prompts) -> list[str]:
    """The texts, where they are; none for ids."""
    if isinstance(prompts, str):
        return [prompts]
    return [str(one) for one in prompts] if isinstance(prompts[0], str) else []


def _ids(row: Any, mask: NDArray[Any] | None, number: int, vocab_size: int | None) -> list[int]:
    ids = np.asarray(row)
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
        raise BadInput(f"prompt {number}: expected at least one token id, found {row!r}")
    if mask is not None and mask.shape != ids.shape:
        raise BadInput(f"prompt {number}: expected an attention_mask of {ids.size} numbers, found {mask.size}")
    kept = ids if mask is None else ids[mask != 0]
    if not kept.size:
        raise BadInput(f"prompt {number}: the attention_mask leaves no token; mark at least one by 1")
    outside = kept[(kept < 0) | (kept >= (np.inf if vocab_size is None else vocab_size))]
    if outside.size:
        most = "" if vocab_size is None else f" to {vocab_size - 1}"
        raise BadInput(f"prompt {number}: expected token ids from 0{most}, found {outside[0]}")
    return [int(id) for id in kept]
