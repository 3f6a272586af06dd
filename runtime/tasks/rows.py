"""Tokens through a model in batches, and back to one text each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.embed import feeds_of
from onnxsmith.runtime.tokenize import TextEncoder, Tokens

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

BATCH = 16  # texts a run

Outputs = dict[str, NDArray[Any]]


def check_task(model: LoadedModel, wanted: str) -> None:
    """Raises BadInput for a model of another task."""
    found = model.manifest.get("task")
    if found != wanted:
        where = model.artifact.folder or model.artifact.model
        raise BadInput(
            f"{where}: expected a model of task {wanted}, found {found or 'none named'}; export one that has it"
        )


def rows(model: LoadedModel, encoder: TextEncoder, tokens: Sequence[Tokens]) -> Iterator[Outputs]:
    """The outputs of each text, float arrays without the batch's axis; what stands behind the text's end is padding."""
    names = [info.name for info in model.inputs]
    for start in range(0, len(tokens), BATCH):
        batch = tokens[start : start + BATCH]
        found = model.run(feeds_of(encoder.pad(batch, "right"), names))
        yield from ({name: values[n] for name, values in found.items()} for n in range(len(batch)))


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis."""
    weights = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    found: NDArray[np.float64] = weights / weights.sum(-1, keepdims=True)
    return found
