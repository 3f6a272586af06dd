"""Answers that stand in a text: the best span. Devlin et al. 2018, arXiv:1810.04805, section 4.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.runtime.tasks.rows import check_task, rows, softmax
from onnxsmith.runtime.tokenize import Window, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

TASK = "answer-span"
OVERLAP = 128  # tokens that neighbouring windows of a long context share, at most half of a model's length
LONGEST = 15  # tokens of an answer


@dataclass(frozen=True)
class Answer:
    """The characters from ``start`` up to ``end`` of the context, whole words, and the probability of the span."""

    score: float
    start: int
    end: int
    answer: str


def answer(model: LoadedModel, question: str, context: str, *, max_answer_len: int = LONGEST) -> Answer:
    """The best span of the context; a context that is too long for the model is read in windows that overlap.

    Raises:
        BadInput: a model of another task, a question that is too long, or a context without a token.
    """
    check_task(model, TASK)
    encoder = text_encoder(model.artifact)
    limit = model.manifest.get("bounds", {}).get("sequence")
    overlap = OVERLAP if limit is None else min(OVERLAP, limit // 4)
    windows = encoder.windows(question, context, overlap)
    best = Answer(-1.0, 0, 0, "")
    for window, outputs in zip(windows, rows(model, encoder, [w.tokens for w in windows]), strict=True):
        score, first, last = best_span(outputs["start_logits"], outputs["end_logits"], window, max_answer_len)
        start, end = window.words[first], window.words[last]
        if score > best.score and start is not None and end is not None:
            best = Answer(score, start[0], end[1], context[start[0] : end[1]])
    return best


def best_span(starts: NDArray[Any], ends: NDArray[Any], window: Window, longest: int) -> tuple[float, int, int]:
    """Probability, first and last token of the best span, by logits [S]: inside the context, not too long.

    The first token, which stands for "no answer", takes its share of the probability.
    """
    inside = np.array([place is not None for place in window.words])
    if not inside.any():
        return -1.0, 0, 0
    counted = inside.copy()
    counted[0] = True
    chances = [softmax(np.where(counted, logits[: len(inside)], -np.inf)) * inside for logits in (starts, ends)]
    spans = np.triu(np.tril(np.outer(*chances), longest - 1))  # neither backwards nor too long
    first, last = np.unravel_index(spans.argmax(), spans.shape)
    if not inside[[first, last]].all():  # all probabilities have vanished
        first = last = np.flatnonzero(inside)[0]
    return float(spans[first, last]), int(first), int(last)
