"""Texts to embeddings with any function that maps feeds to outputs (a session, or PyTorch beside it)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.tokenize import Padding, TextEncoder

RunFeeds = Callable[[Feeds], Mapping[str, NDArray[Any]]]


def embed_texts(
    texts: Sequence[str],
    run: RunFeeds,
    encoder: TextEncoder,
    *,
    inputs: Collection[str],
    output: str,
    padding: Padding | None = None,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Embed texts in batches of similar length, which keeps padding small.

    Args:
        texts: At least one.
        run: Feeds to outputs by name.
        encoder: The model's tokenizer.
        inputs: The names that ``run`` wants, out of those that ``TextEncoder.pad`` makes.
        output: Name of the output [B, D].
        padding: Side of the padding, the encoder's own when None; a sound model gives the same for either.
        batch_size: Texts per run.

    Returns:
        float32 [N, D], in the order of ``texts``.
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise BadInput("expected a list of at least one text; give the texts to embed")
    if batch_size < 1:
        raise BadUsage(f"batch_size must be at least 1, found {batch_size}")
    tokens = encoder.encode(texts)
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index].ids))
    parts = []
    for start in range(0, len(order), batch_size):
        batch = encoder.pad([tokens[index] for index in order[start : start + batch_size]], padding)
        parts.append(np.asarray(run(feeds_of(batch, inputs))[output], np.float32))
    sorted_rows = np.concatenate(parts)
    rows = np.empty_like(sorted_rows)
    rows[order] = sorted_rows
    return rows


def feeds_of(batch: Feeds, inputs: Collection[str]) -> dict[str, NDArray[Any]]:
    """What ``TextEncoder.pad`` made, for a model with these inputs. Raises BadInput for one that no text gives."""
    if strange := [name for name in inputs if name not in batch]:
        raise BadInput(f"no text gives the input {', '.join(strange)}; run this model on arrays instead")
    return {name: batch[name] for name in inputs}
