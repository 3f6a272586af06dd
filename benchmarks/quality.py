"""What each precision costs a decoder: KL divergence to fp32 and agreement on the next token, on English text.

Run by ``make bench-quality``. SmolLM2-135M-Instruct with its real weights, with a cache, reads 400 tokens of each of
eight pages of this project; what is calibrated learns from other pages. Near ties are as in closeness.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import onnxsmith
from benchmarks.bench.engines import ROOT
from benchmarks.generate.adapters.ours import texts
from benchmarks.generate.engines import weights_file
from onnxsmith.cli import console
from onnxsmith.compiler.closeness import Values, compared
from onnxsmith.compiler.inputs import Case
from onnxsmith.runtime.artifact import open_artifact
from onnxsmith.runtime.generation.moved import empty
from onnxsmith.runtime.tokenize import text_encoder

PRECISIONS = ("int8-weights", "int8", "int8+calibrate", "int4", "int4+calibrate")
_DOCS = ("compare", "generation", "tasks", "tuning", "training", "verification")
_PAGES = ("README", "CONTRIBUTING", *(f"docs/{page}" for page in _DOCS))
_TOKENS = 400
_LOGITS = "logits"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what precisions cost.")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    precisions = parser.parse_args().precisions
    with TemporaryDirectory() as folder:
        plain = onnxsmith.export("llama", Path(folder) / "plain", checkpoint=weights_file())
        encoder = text_encoder(open_artifact(plain), truncate=False)
        found = encoder.encode([(ROOT / f"{page}.md").read_text(encoding="utf-8") for page in _PAGES])
        pages = [tokens.ids[:_TOKENS] for tokens in found]
        exact = list(_scored(plain, "fp32", pages))
        console.note("| precision | KL divergence | top-1 agreement | without near ties |")
        console.note("|---|---|---|---|")
        for precision in precisions:
            cases = (Case(page, {}, np.ones(1, np.bool_)) for page in _PAGES)
            (near,) = compared(zip(exact, _scored(plain, precision, pages), cases, strict=True), {_LOGITS})
            console.note(f"| {precision} | {near.kl:.4f} | {near.top1:.1%} | {near.clear_top1:.1%} |")


def _scored(plain: Path, wanted: str, pages: Sequence[Sequence[int]]) -> Iterator[Values]:
    """Logits [1, tokens, vocabulary] of each page, read at once with nothing in the cache yet."""
    precision, _, calibrate = wanted.partition("+")
    with TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        samples = texts() if calibrate else None
        onnxsmith.optimize(
            plain, made, precision=precision, cache=True, all_logits=True, calibrate=samples, verify="off", tuned=False
        )
        model = onnxsmith.load(made)
        for ids in pages:
            feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
            past = {info.name: empty(info, 1).numpy() for info in model.inputs if info.name not in feeds}
            yield {_LOGITS: model.run(feeds | past)[_LOGITS]}


if __name__ == "__main__":
    main()
