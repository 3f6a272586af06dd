"""Labels for texts or pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.tasks.rows import check_task, rows, softmax
from onnxsmith.runtime.tokenize import Text, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

TASK = "classify"


@dataclass(frozen=True)
class Label:
    """A class under the checkpoint's name for it, and its probability; of a regression, the value itself."""

    label: str
    score: float


def classify(model: LoadedModel, texts: Sequence[Text]) -> list[list[Label]]:
    """All labels of each text or pair, the likeliest first.

    The checkpoint's ``problem_type`` says what the scores mean. Without it they exclude each other (softmax), and a
    single one is a probability of its own (sigmoid).

    Raises:
        BadInput: a model of another task, or whose manifest does not have as many labels as the model.
    """
    check_task(model, TASK)
    encoder = text_encoder(model.artifact)
    found = []
    for outputs in rows(model, encoder, encoder.encode(texts)):
        (logits,) = outputs.values()
        names = model.manifest.get("labels") or [f"LABEL_{n}" for n in range(len(logits))]
        if not isinstance(names, list) or len(names) != len(logits):
            raise BadInput(f"{model.artifact.model}: expected {len(logits)} labels in its manifest; export it again")
        scores = _scores(logits, model.manifest.get("problem_type"))
        order = np.argsort(-scores, kind="stable")
        found.append([Label(str(names[n]), float(scores[n])) for n in order])
    return found


def _scores(logits: NDArray[np.float32], problem: str | None) -> NDArray[np.float64]:
    """By logits [L]."""
    if problem == "regression":
        return logits.astype(np.float64)
    if problem == "multi_label_classification" or len(logits) == 1:
        return 1 / (1 + np.exp(-logits.astype(np.float64)))
    return softmax(logits)
