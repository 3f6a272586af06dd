"""A decoder as two artifacts, each in its best weight format: one reads prompts, the other makes tokens.

    prefill/   products in integers, of many tokens at once
    decode/    weights in the precision asked for: one token at a time waits for them to come from memory

Both append to the same buffers, so that one goes on with what the other has read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxsmith.compiler.artifact import check_writable, replaced
from onnxsmith.compiler.optimize import optimize
from onnxsmith.compiler.report import OptimizeReport, joined_parity
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.artifact import DECODE, ENCODER, PREFILL, open_artifact

PROMPTS = "int8"  # SmolLM2-135M, 512 tokens, 2 cores with VNNI: 339 ms; 945 ms in blocks of 4 bits


def optimize_split(
    source: str | Path,
    output: str | Path,
    *,
    precision: str,
    budget: str | None = None,
    cache: bool = True,
    **options: Any,
) -> OptimizeReport:
    """As :func:`onnxsmith.optimize` with a cache, for each part; the report is decode's, with prefill's parity in it.

    ``precision`` and ``budget`` are decode's, ``options`` go for both. The parts share no weights.

    Raises:
        BadUsage: the output is one file, or the model an encoder-decoder, or no cache is wanted. BadInput: the model
            gets none; else as ``optimize`` does. Nothing is written then.
    """
    output = Path(output)
    if not cache:
        raise BadUsage("split is for a model with a cache, any other makes no tokens one by one; add cache")
    if output.suffix == ".onnx":
        raise BadUsage(f"a model that is split is two models; give a folder, and not {output}")
    check_writable(output)
    if Path(source).resolve().is_relative_to(output.resolve()):
        raise BadInput(f"{output} holds the model to optimize, which is never changed; give another output")
    with replaced(output) as made:
        made.mkdir()
        decode = _part(source, made / DECODE, precision=precision, budget=budget, **options)
        prefill = _part(source, made / PREFILL, precision=PROMPTS, **options)
    return replace(decode, parity=joined_parity(decode.parity, prefill.parity, PREFILL))


def _part(source: str | Path, folder: Path, **options: Any) -> OptimizeReport:
    report = optimize(source, folder, cache=True, **options)
    cache = open_artifact(folder).manifest.get("cache")
    if (folder / ENCODER).exists() or (cache and cache["cross"]):
        raise BadUsage(f"{source} is an encoder-decoder, whose source is read apart already; leave out split")
    if cache is None:
        why = next((r.reason for r in report.remarks if r.rule == "kv-cache"), "")
        raise BadInput(f"{source} gets no cache, so it has no steps to split off: {why}")
    return report
