"""BERT on a GPU: our fp32, fp16 and bf16 beside PyTorch eager (SDPA) and torch.compile, parity and speed in one go.

    python benchmarks/gpu.py                        BERT-base, batch 1 and 32, 128 and 384 tokens, on CUDA
    python benchmarks/gpu.py --tiny --device cpu    the same steps on a tiny model without a GPU, to see that they run

Ours runs with inputs and outputs bound to the device and, where the provider takes the graph, as a CUDA graph; torch's
reduce-overhead mode uses CUDA graphs too. Runs of two contestants are interleaved (A B B A); a ratio below 1 means that
ours is faster, its interval is a bootstrap 95% one. Parity is the relative RMS error against PyTorch in float64. What
cannot run is written down with its reason. Needs the transformers library; writes benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.errors import BadInput, first_line
from onnxsmith.runtime.artifact import open_artifact
from onnxsmith.runtime.measure import interleaved
from onnxsmith.runtime.options import recorded_config
from onnxsmith.runtime.parity import cosine, rms
from onnxsmith.runtime.session import open_session, session_options

RESULTS = Path(__file__).parent / "results" / "gpu.json"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
OUTPUT = "last_hidden_state"
Feeds = dict[str, torch.Tensor]
Run = Callable[[], torch.Tensor]


def main() -> None:
    options = _options()
    model = _bert(options.tiny).eval()
    raw = _exported(model, options.models)
    rows = []
    for precision in options.precisions:
        fast = options.models / f"{options.size}-{precision}"
        onnxsmith.optimize(raw, fast, target="cuda", precision=precision, verify="off")
        for batch in options.batches:
            for length in options.lengths:
                rows.append(_cell(model, fast, precision, batch, length, options))
                console.note(json.dumps(rows[-1]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": _machine(options.device), "cells": rows}, indent=2) + "\n")
    console.note(f"wrote {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure BERT on a GPU, beside PyTorch.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a dry run")
    parser.add_argument("--tiny", action="store_true", help="two small layers instead of BERT-base")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 384])
    parser.add_argument("--precisions", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--pairs", type=int, default=60, help="timed pairs per contestant and cell")
    parser.add_argument("--models", type=Path, default=Path("build/bench"), help="folder for the models")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON to write")
    options = parser.parse_args()
    options.size = "tiny" if options.tiny else "base"
    return options


def _bert(tiny: bool) -> torch.nn.Module:
    """Random weights: neither speed nor rounding depends on what a model has learnt."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(**(TINY if tiny else {}), attn_implementation="sdpa")
    return BertModel(config, add_pooling_layer=False)


def _exported(model: torch.nn.Module, folder: Path) -> Path:
    checkpoint = folder / "gpu-checkpoint"
    model.save_pretrained(checkpoint)
    return onnxsmith.export("bert", folder / "gpu-raw", checkpoint=checkpoint)


def _cell(
    model: torch.nn.Module, fast: Path, precision: str, batch: int, length: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Parity of ours, and its time beside each contestant's, at one shape. Rows after the first are partly padded."""
    cell: dict[str, Any] = {"precision": precision, "batch": batch, "length": length}
    feeds = _feeds(batch, length, options.device)
    try:
        ours, cell["cuda_graph"] = _ours(fast, feeds, options.device)
        cell |= _parity(ours(), model, feeds)
    except Exception as error:  # a benchmark goes on; every library has its own errors
        return cell | {"refused": first_line(error)}
    for name, contestant in _contestants(model, precision, feeds, options.device).items():
        try:
            cell[name] = asdict(interleaved(contestant, ours, options.pairs))
        except Exception as error:
            cell[name] = {"refused": first_line(error)}
    return cell


def _feeds(batch: int, length: int, device: str) -> Feeds:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (batch, length), generator=generator)
    lengths = torch.tensor([length, *torch.randint(length // 2, length + 1, (batch - 1,), generator=generator)])
    mask = (torch.arange(length) < lengths[:, None]).long()
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: value.to(device) for name, value in feeds.items()}


def _ours(fast: Path, feeds: Feeds, device: str) -> tuple[Run, bool]:
    """A function that runs on bound memory, and whether it replays a CUDA graph."""
    if device == "cuda":
        try:
            return _bound(fast, feeds, device, graph=True), True
        except Exception as error:  # the provider refuses a graph that has a node on the CPU
            console.note(f"no CUDA graph: {first_line(error)}")
    return _bound(fast, feeds, device, graph=False), False


def _bound(fast: Path, feeds: Feeds, device: str, graph: bool) -> Run:
    session = _session(fast, feeds, device, graph)
    binding = session.io_binding()
    for wanted in session.get_inputs():
        value = feeds[wanted.name]
        binding.bind_input(wanted.name, device, 0, np.int64, tuple(value.shape), value.data_ptr())
    batch, length = feeds["input_ids"].shape
    shapes = {
        o.name: (batch, length, o.shape[-1]) if len(o.shape) == 3 else (batch, o.shape[-1])
        for o in session.get_outputs()
    }
    results = {name: torch.empty(shape, dtype=torch.float32, device=device) for name, shape in shapes.items()}
    for name, value in results.items():
        binding.bind_output(name, device, 0, np.float32, tuple(value.shape), value.data_ptr())

    def run() -> torch.Tensor:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return results[OUTPUT]

    run()  # a CUDA graph is captured in the first runs: whether it can be shows here
    return run


def _session(fast: Path, feeds: Feeds, device: str, graph: bool) -> ort.InferenceSession:
    artifact = open_artifact(fast)
    config = recorded_config(artifact)
    if device == "cpu":
        return open_session(artifact.model, config=config)
    open_session(artifact.model, provider="cuda", config=config)  # says which library is missing
    chosen = session_options(config=config)
    for name, size in zip(("batch", "sequence"), feeds["input_ids"].shape, strict=True):
        chosen.add_free_dimension_override_by_name(name, size)
    settings = {"enable_cuda_graph": str(int(graph))}
    session = ort.InferenceSession(str(artifact.model), chosen, [("CUDAExecutionProvider", settings)])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise BadInput("the CUDA provider did not load")
    return session


def _contestants(model: torch.nn.Module, precision: str, feeds: Feeds, device: str) -> dict[str, Run]:
    copy = _bert_like(model).to(device, DTYPES[precision])
    compiled = torch.compile(copy, mode="reduce-overhead" if device == "cuda" else None)
    return {"torch eager sdpa": _torch(copy, feeds, device), "torch.compile": _torch(compiled, feeds, device)}


def _bert_like(model: torch.nn.Module) -> torch.nn.Module:
    twin = type(model)(model.config, add_pooling_layer=False).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def _torch(model: Any, feeds: Feeds, device: str) -> Run:
    def run() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(**feeds).last_hidden_state
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return run


def _parity(found: torch.Tensor, model: torch.nn.Module, feeds: Feeds) -> dict[str, float]:
    """Over the positions that are no padding."""
    truth = _torch(_bert_like(model).to(feeds["input_ids"].device, torch.float64), feeds, "cpu")()
    counts = feeds["attention_mask"].bool()
    right, ours = (x[counts].double().cpu().numpy() for x in (truth, found))
    return {"relative_rms": rms(ours - right) / rms(right), "smallest_cosine": float(cosine(ours, right).min())}


def _machine(device: str) -> dict[str, Any]:
    card = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "card": card,
        "cuda": torch.version.cuda,
        "processor": platform.processor() or platform.machine(),
        "versions": {
            "onnxruntime": ort.__version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
        "onnxsmith": onnxsmith.__version__,
    }


if __name__ == "__main__":
    main()
