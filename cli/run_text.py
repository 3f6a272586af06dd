"""Embeddings of texts and outputs on tensors, as ``onnxsmith run`` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxsmith.cli import console

if TYPE_CHECKING:
    import numpy as np

    from onnxsmith.runtime.model import LoadedModel

SUMMARY = ("dtype", "shape", "min", "max", "mean")


def run_texts(model: LoadedModel, texts: Sequence[str], as_json: bool) -> dict[str, np.ndarray]:
    """Print the embeddings of the texts, and give them as an output."""
    embeddings = model.embed(texts)
    if as_json:
        for text, row in zip(texts, embeddings.tolist(), strict=True):
            console.emit_json({"text": text, "embedding": row}, indent=None)
    else:
        _print_embeddings(texts, embeddings)
    return {"embeddings": embeddings}


def _print_embeddings(texts: Sequence[str], embeddings: np.ndarray) -> None:
    """The size and first components of each embedding [N, D], and the cosine of each to the first."""
    from onnxsmith.runtime.search import cosines

    to_first = cosines(embeddings[:1], embeddings)[0]
    rows = [
        (text, row.size, " ".join(f"{value:+.3f}" for value in row[:4]) + " ...", f"{cosine:.4f}")
        for text, row, cosine in zip(texts, embeddings, to_first, strict=True)
    ]
    console.table("embeddings", ("text", ">size", "embedding", ">cosine to the first"), rows)


def run_tensors(model: LoadedModel, feeds: Mapping[str, np.ndarray], as_json: bool) -> dict[str, np.ndarray]:
    """Print what the outputs look like, and give them."""
    outputs = model.run(feeds)
    if as_json:
        for name, value in outputs.items():
            console.emit_json({"output": name, **_summary(value)}, indent=None)
        return outputs
    summaries = [(name, _summary(value)) for name, value in outputs.items()]
    rows = [(name, *(summary.get(key, "") for key in SUMMARY)) for name, summary in summaries]
    console.table("outputs", ("output", *SUMMARY), rows)
    return outputs


def _summary(value: np.ndarray) -> dict[str, object]:
    """Type, shape and range of an output; the values themselves go to --output."""
    summary: dict[str, object] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    if value.size and value.dtype.kind in "biuf":
        summary |= {"min": float(value.min()), "max": float(value.max()), "mean": float(value.mean())}
    return summary
