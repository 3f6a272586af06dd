"""PyTorch on transformers' own module: eager, and compiled with frozen weights (fixed shapes, a compilation each)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.adapters import Ids, Prepare, Run, Unavailable
from benchmarks.bench.subjects import load_module


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    if variant == "compile" and shutil.which("g++") is None:
        raise Unavailable("torch.compile needs a C++ compiler, and there is no g++")
    torch.set_num_threads(threads)
    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    module = load_module(config["model_type"], folder / "checkpoint")

    def prepare(ids: Ids) -> Run:
        run, tokens = _compiled(module) if variant == "compile" else module, torch.from_numpy(ids)
        mask = torch.ones_like(tokens)

        def once() -> Any:
            with torch.no_grad():
                return run(tokens, mask).numpy()

        return once

    return prepare


def _compiled(module: Any) -> Any:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    inductor.freezing = True  # type: ignore[attr-defined]  # set by a module that installs its options itself
    return torch.compile(module, dynamic=False)
