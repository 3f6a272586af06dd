"""CTranslate2, through its own converter: BERT encoders and GPT-2."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from benchmarks.bench.adapters import Ids, Prepare, Run, Unavailable


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] not in ("bert", "gpt2"):
        raise Unavailable(f"CTranslate2 cannot run {config['model_type']}'s encoder alone")
    made = folder / f"ctranslate2-{version('ctranslate2')}"
    if not made.exists():
        _convert(folder / "checkpoint", made)
    options = {"compute_type": variant, "intra_threads": threads, "inter_threads": 1}
    if config["model_type"] == "gpt2":
        words = json.loads((made / "vocabulary.json").read_text(encoding="utf-8"))
        return _next_token(ctranslate2.Generator(str(made), "cpu", **options), words)
    return _hidden(ctranslate2.Encoder(str(made), "cpu", **options))


def _convert(checkpoint: Path, made: Path) -> None:
    ctranslate2.converters.TransformersConverter(str(checkpoint)).convert(str(made))


def _hidden(encoder: Any) -> Prepare:
    def prepare(ids: Ids) -> Run:
        rows = ids.tolist()
        return lambda: np.asarray(encoder.forward_batch(rows).last_hidden_state)

    return prepare


def _next_token(generator: Any, words: list[str]) -> Prepare:
    """Its ``forward_batch`` computes the logits of every position; one generated token is the nearest thing."""

    def prepare(ids: Ids) -> Run:
        rows = [[words[id] for id in row] for row in ids.tolist()]

        def once() -> Any:
            results = generator.generate_batch(
                rows, max_length=1, include_prompt_in_result=False, return_logits_vocab=True, beam_size=1
            )
            return np.stack([np.asarray(result.logits[0][0]) for result in results])[:, None]

        return once

    return prepare
