"""ONNX Runtime at ORT_ENABLE_ALL: on the raw export, and on what the optimizers of its surroundings make of it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.bench.adapters import Ids, Prepare, Run, Unavailable, feeds_of


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    path = _made(folder, variant)
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime's error classes have no common base
        raise Unavailable(f"ONNX Runtime refuses {path.name}: {' '.join(str(e).split())[:200]}") from e
    names = [arg.name for arg in session.get_inputs()]

    def prepare(ids: Ids) -> Run:
        given = feeds_of(ids)
        feeds = {name: given[name] for name in names}
        return lambda: session.run(None, feeds)[0]

    return prepare


def _made(folder: Path, variant: str) -> Path:
    raw = folder / "raw.onnx"
    made = folder / f"{variant}-{version('onnxruntime')}-{version('onnxscript')}.onnx"
    if variant != "raw" and not made.exists():
        {"transformers": _transformers, "fusions": _fusions, "dynamic": _dynamic}[variant](raw, made)
    return raw if variant == "raw" else made


def _transformers(raw: Path, made: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((raw.parent / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    heads, hidden = (_first(config, names) for names in (_HEADS, _HIDDEN))
    kind = config["model_type"]
    optimized = optimize_model(str(raw), model_type=kind, num_heads=heads, hidden_size=hidden, opt_level=1)
    optimized.save_model_to_file(str(made))


_HEADS, _HIDDEN = ("num_attention_heads", "n_head", "num_heads"), ("hidden_size", "n_embd", "d_model")


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    return next(int(config[name]) for name in names if name in config)


def _fusions(raw: Path, made: Path) -> None:
    import onnx_ir as ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    optimized, _ = optimize_for_ort(ir.load(raw))
    ir.save(optimized, made)


def _dynamic(raw: Path, made: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(raw, made, weight_type=QuantType.QInt8, per_channel=True)
