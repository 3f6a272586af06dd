"""transformers' ``generate``: the reference, whose fp32 tokens all others' are set beside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.generate.adapters import Generate, Ids, Said

_PAD = 0  # any id, as the mask says what counts


def open_engine(folder: Path, variant: str, threads: int) -> Generate:
    torch.set_num_threads(threads)
    checkpoint = folder / "checkpoint"
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(checkpoint, dtype=torch.float32).eval()
    start = model.generation_config.decoder_start_token_id
    model.generation_config = transformers.GenerationConfig(pad_token_id=_PAD, decoder_start_token_id=start)

    def generate(prompts: Ids, new: int, beams: int) -> Said:
        ids, mask = _padded(prompts)
        clock = _Clock()
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new,
                num_beams=beams,
                do_sample=False,
                stopping_criteria=[clock],
            )
        total = time.perf_counter() - clock.start
        return Said(found[:, -new:].tolist(), clock.first - clock.start, total)

    return generate


def _padded(prompts: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [B, S]; shorter rows are filled up on the right: causal prompts are equally long."""
    longest = max(map(len, prompts))
    rows = [[*row, *[_PAD] * (longest - len(row))] for row in prompts]
    masks = [[1] * len(row) + [0] * (longest - len(row)) for row in prompts]
    return torch.tensor(rows), torch.tensor(masks)


class _Clock:
    """A stopping criterion that never stops, and knows when it was asked first: after the first token."""

    def __init__(self) -> None:
        self.start, self.first = time.perf_counter(), 0.0

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.first = self.first or time.perf_counter()
        return torch.zeros(len(ids), dtype=torch.bool)
