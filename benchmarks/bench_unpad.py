"""Speed of BERT-base on a ragged batch, with and without ``--unpad``: 8 sentences, half of all positions padding.

Run by ``python benchmarks/bench_unpad.py``. Both run interleaved in one process (A B B A); a ratio below 1 means that
the unpadded one is faster, and its interval is a bootstrap 95% one. Weights are random: they do not change the speed.
Outputs are compared at the allowed positions.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.runtime.measure import interleaved

LENGTHS = (128, 112, 80, 64, 48, 40, 24, 16)  # half of 8 x 128


def main() -> None:
    options = _options()
    with TemporaryDirectory() as folder:
        raw = _export(Path(folder), options.layers)
        sessions = [_session(raw, Path(folder), unpad, options.threads) for unpad in (False, True)]
    mask = (np.arange(LENGTHS[0]) < np.array(LENGTHS)[:, None]).astype(np.int64)
    feeds = {"input_ids": np.random.default_rng(0).integers(1000, 30000, mask.shape), "attention_mask": mask}
    padded, packed = (session.run(None, feeds)[0] for session in sessions)
    console.note(f"largest difference at allowed positions: {np.abs(padded - packed)[mask == 1].max():.2g}")
    a, b = sessions
    found = interleaved(lambda: a.run(None, feeds), lambda: b.run(None, feeds), options.pairs)
    noise = f"A/A [{found.aa_low:.3f}, {found.aa_high:.3f}]"
    times = f"{found.a_ms:.1f} -> {found.b_ms:.1f} ms"
    console.note(f"unpadded / padded: {found.median:.3f} [{found.low:.3f}, {found.high:.3f}] ({noise}), {times}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure padding removal on the CPU.")
    parser.add_argument("--layers", type=int, default=12, help="layers of BERT-base")
    parser.add_argument("--pairs", type=int, default=20, help="timed pairs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads inside an operator")
    return parser.parse_args()


def _export(folder: Path, layers: int) -> Path:
    model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=layers), add_pooling_layer=False).eval()
    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    path, names = folder / "raw.onnx", ["input_ids", "attention_mask"]
    shapes = (axes, axes)
    torch.onnx.export(model, (ids, ids), path, input_names=names, dynamic_shapes=shapes, dynamo=True, verbose=False)
    return path


def _session(raw: Path, folder: Path, unpad: bool, threads: int) -> Any:
    output = folder / f"unpad-{unpad}"
    onnxsmith.optimize(raw, output, unpad=unpad, verify="off", tuned=False)
    return onnxsmith.load(output, threads=threads).session


if __name__ == "__main__":
    main()
