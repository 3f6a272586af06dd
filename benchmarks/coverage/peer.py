"""Let other optimizers loose on one file, in an environment of their own (build/peers), which has nothing of ours:

    build/peers/bin/python benchmarks/coverage/peer.py MODEL FOLDER HEADS HIDDEN

writes FOLDER/TOOL.onnx, or FOLDER/TOOL.error with the reason, for each tool.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

TYPES = ("bert", "gpt2", "bart", "t5", "vit", "clip")  # onnxruntime.transformers wants to be told
TRANSFORMERS, FUSIONS = "onnxruntime.transformers", "onnxscript.ort_fusions"


def main(model: Path, folder: Path, heads: int, hidden: int) -> None:
    for kind in TYPES:
        _try(folder / f"{TRANSFORMERS}-{kind}", lambda path, kind=kind: _transformers(model, path, kind, heads, hidden))
    _try(folder / FUSIONS, lambda path: _fusions(model, path))


def _try(stem: Path, optimize: Callable[[Path], None]) -> None:
    try:
        optimize(stem.with_name(f"{stem.name}.onnx"))
    except Exception as e:  # the tool's own fault, whatever it is, is its result
        reason = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        stem.with_name(f"{stem.name}.error").write_text(reason, encoding="utf-8")


def _transformers(model: Path, output: Path, kind: str, heads: int, hidden: int) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    optimized = optimize_model(str(model), model_type=kind, num_heads=heads, hidden_size=hidden, opt_level=1)
    optimized.save_model_to_file(str(output))


def _fusions(model: Path, output: Path) -> None:
    import onnx_ir as ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    optimized, _ = optimize_for_ort(ir.load(model))
    ir.save(optimized, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
