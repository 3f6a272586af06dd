"""onnxruntime-genai on what its own model builder makes of the checkpoint."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

from benchmarks.generate.adapters import Generate, Ids, Said


def open_engine(folder: Path, variant: str, threads: int) -> Generate:
    config = genai.Config(str(_built(folder, variant)))
    session = f'{{"session_options": {{"intra_op_num_threads": {threads}}}}}'
    config.overlay(f'{{"model": {{"decoder": {session}}}}}')
    model = genai.Model(config)

    def generate(prompts: Ids, new: int, beams: int) -> Said:
        length = len(prompts[0]) + new  # prompts of a batch are equally long
        params = genai.GeneratorParams(model)
        params.set_search_options(
            do_sample=False, num_beams=beams, min_length=length, max_length=length, batch_size=len(prompts)
        )
        start = time.perf_counter()
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array(prompts, np.int32))
        generator.generate_next_token()
        first = time.perf_counter() - start
        for _ in range(new - 1):
            generator.generate_next_token()
        total = time.perf_counter() - start
        ids = [generator.get_sequence(row)[-new:].tolist() for row in range(len(prompts))]
        return Said(ids, first, total)

    return generate


def _built(folder: Path, variant: str) -> Path:
    made = folder / f"genai-{variant}-{version('onnxruntime-genai')}"
    if not made.exists():
        words = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu", "-p", variant]
        making = made.with_name("making-" + made.name)
        places = ["-i", folder / "checkpoint", "-o", making, "-c", folder / "genai-scratch"]
        subprocess.run([*words, *places], check=True)
        making.rename(made)
    return made
