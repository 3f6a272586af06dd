"""CTranslate2 on what its own converter makes of an encoder-decoder's checkpoint."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path

import ctranslate2

from benchmarks.generate.adapters import Generate, Ids, Said


def open_engine(folder: Path, variant: str, threads: int) -> Generate:
    made = folder / f"ctranslate2-{version('ctranslate2')}"
    if not made.exists():
        ctranslate2.converters.TransformersConverter(str(folder / "checkpoint")).convert(str(made))
    words = json.loads((made / "shared_vocabulary.json").read_text(encoding="utf-8"))
    numbers = {word: id for id, word in enumerate(words)}
    translator = ctranslate2.Translator(str(made), "cpu", compute_type=variant, intra_threads=threads, inter_threads=1)

    def generate(prompts: Ids, new: int, beams: int) -> Said:
        rows = [[words[id] for id in row] for row in prompts]
        start = time.perf_counter()
        results = translator.translate_batch(
            rows, beam_size=beams, min_decoding_length=new, max_decoding_length=new, max_input_length=0
        )
        total = time.perf_counter() - start
        return Said([[numbers[word] for word in result.hypotheses[0]] for result in results], 0.0, total)

    return generate
