"""Speed of MiniLM on the CPU: our fp32 against ONNX Runtime on the raw export, and our int8 against our fp32.

Run by ``make bench``. Both sides of a pair run interleaved in one process (A B B A); a ratio below 1 means
that the second one is faster, and its interval is a bootstrap 95% one. Writes benchmarks/results/minilm.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.cli.demo import export_raw
from onnxsmith.runtime.measure import Ratio

SHAPES = ((1, 8), (1, 32), (1, 128), (1, 256), (8, 32), (8, 128))
PAIRS = (("raw", "fp32"), ("fp32", "int8"))
RESULTS = Path(__file__).parent / "results" / "minilm.json"


def main() -> None:
    options = _options()
    paths = {"raw": export_raw(options.models / "raw")}
    for precision in ("fp32", "int8"):
        paths[precision] = options.models / precision
        onnxsmith.optimize(paths["raw"], paths[precision], precision=precision, verify="off")
    runs = []
    for reference, variant in PAIRS:
        for batch, sequence in SHAPES:
            ratio = _measure(paths[reference], paths[variant], batch, sequence, options)
            runs.append({"a": reference, "b": variant, "batch": batch, "sequence": sequence, **asdict(ratio)})
            console.note(_line(reference, variant, batch, sequence, ratio))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": _machine(options.threads), "runs": runs}, indent=2) + "\n")
    console.note(f"wrote {RESULTS}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure MiniLM on the CPU.")
    parser.add_argument("--models", type=Path, default=Path("build/bench"), help="folder for the models")
    parser.add_argument("--pairs", type=int, default=40, help="timed pairs per shape")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads inside an operator")
    return parser.parse_args()


def _measure(a: Path, b: Path, batch: int, sequence: int, options: argparse.Namespace) -> Ratio:
    """Time of ``b`` over time of ``a`` on the same random tokens; rows after the first are partly padded."""
    shapes = {"batch": batch, "sequence": sequence}
    comparison = onnxsmith.compare([a, b], shapes=shapes, pairs=options.pairs, threads=options.threads)
    ratio = comparison.variants[1].latency
    assert ratio is not None  # only the reference has none
    return ratio


def _machine(threads: int) -> dict[str, Any]:
    """Without these a number means nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "vnni": "avx512_vnni" in flags or "avx_vnni" in flags,
        "onnxruntime": onnxruntime.__version__,
    }


def _line(reference: str, variant: str, batch: int, sequence: int, ratio: Ratio) -> str:
    where = f"{variant} / {reference} at {batch}x{sequence}"
    noise = f"A/A [{ratio.aa_low:.3f}, {ratio.aa_high:.3f}]"
    times = f"{ratio.a_ms:.2f} -> {ratio.b_ms:.2f} ms"
    return f"{where}: {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] ({noise}), {times}"


if __name__ == "__main__":
    main()
