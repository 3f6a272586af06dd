"""OpenVINO on the raw export: fp32, bf16, and int8 by NNCF with its default precision for the rest."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import openvino

from benchmarks.bench.adapters import Ids, Prepare, Run, Unavailable, feeds_of

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    core = openvino.Core()
    if variant == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("OpenVINO reports no bf16 on this processor")
    model = _int8(core, folder) if variant == "int8" else core.read_model(folder / "raw.onnx")
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if variant in _HINTS:
        options["INFERENCE_PRECISION_HINT"] = _HINTS[variant]
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def prepare(ids: Ids) -> Run:
        feeds = feeds_of(ids)
        return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0]

    return prepare


def _int8(core: Any, folder: Path) -> Any:
    made = folder / f"nncf-{version('nncf')}.xml"
    if made.exists():
        return core.read_model(made)
    import nncf

    from benchmarks.bench.worker import samples

    inputs = [feeds_of(ids[None]) for ids in samples(folder)]
    model = nncf.quantize(
        core.read_model(folder / "raw.onnx"),
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(inputs),
    )
    openvino.save_model(model, made, compress_to_fp16=False)
    return model
