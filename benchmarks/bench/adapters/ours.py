"""onnxsmith, as its users get it: optimized, then loaded with the session options that the artifact records."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.bench.adapters import Ids, Prepare, Run


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    import onnxsmith
    from benchmarks.bench.engines import code

    path = folder / f"onnxsmith-{variant}-{code()}"
    if not path.exists():
        for stale in folder.glob(f"onnxsmith-{variant}-{'?' * len(code())}"):
            shutil.rmtree(stale)
        onnxsmith.optimize(folder / "raw.onnx", path, precision=variant, verify="off", tuned=False)
    session = onnxsmith.load(path, threads=threads).session

    def prepare(ids: Ids) -> Run:
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return lambda: session.run(None, feeds)[0]

    return prepare
