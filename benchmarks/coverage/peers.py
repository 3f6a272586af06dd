"""What other optimizers make of the same exports: onnxruntime.transformers and onnxscript's ort_fusions.

    python -m benchmarks.coverage.peers [FAMILY ...]

takes what ``make coverage`` left under build/ (the gate, with the installed library) and writes
benchmarks/results/coverage-peers.json. A file counts as fused by the rule that ours are held to: every site of the
model's definition is one operator, and the outputs are the same. onnxruntime.transformers wants a model type: the best
result over several counts, since its user would have to find it. Each file is tried in a child process.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir

from benchmarks.coverage.cells import ROOT, Group, groups
from benchmarks.coverage.check_cells import load_batches
from onnxsmith.cli import console
from onnxsmith.compiler import sites
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.canonicalize import canonicalize
from tests.coverage.batches import BATCHES
from tests.coverage.cell import Cell, compare, session
from tests.coverage.families import FAMILIES
from tests.coverage.family import HEADS, HIDDEN

EXPORTERS = ("torchscript-17", "dynamo-18", "dynamo-23")
RESULTS = ROOT / "benchmarks" / "results" / "coverage-peers.json"
_TYPES = ("bert", "gpt2", "bart", "t5", "vit", "clip")
_SECONDS = 120


def main(names: list[str]) -> None:
    found = []
    for group in groups():
        family = FAMILIES[group.family]
        if family.gate and group.library == "5" and (not names or group.family in names):
            found += [tried(group, exporter) for exporter in EXPORTERS if (group.folder / f"{exporter}.onnx").exists()]
            console.note(f"{group.family}, {group.attention}: {[(f['exporter'], f['fused']) for f in found[-3:]]}")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fused = Counter(peer for one in found for peer in one["fused"])
    console.note(f"of {len(found)} files, fused with the same outputs: {dict(fused)}")


def tried(group: Group, exporter: str) -> dict[str, object]:
    """What each peer made of one file: those that fused it whole, and all reasons."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        task = pool.apply_async(judge, (group, exporter))
        try:
            reasons = task.get(_SECONDS)
        except Exception as e:
            reasons = {"all": f"{type(e).__name__}: {e}"}
    return {
        **asdict(group),
        "exporter": exporter,
        "fused": [p for p, why in reasons.items() if not why],
        "why": reasons,
    }


def judge(group: Group, exporter: str) -> dict[str, str]:
    """Why each peer's result does not count as fused, "" where it does."""
    model = group.folder / f"{exporter}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "peer.onnx")
        tools = [
            _verdict(lambda kind=kind: _transformers(model, output, kind), group, model, output) for kind in _TYPES
        ]
        fusions = _verdict(lambda: _fusions(model, output), group, model, output)
    return {"onnxruntime.transformers": min(tools, key=len), "onnxscript.ort_fusions": fusions}


def _verdict(optimize: Callable[[], None], group: Group, model: Path, output: Path) -> str:
    family, cell = FAMILIES[group.family], Cell()
    try:
        output.unlink(missing_ok=True)
        optimize()
        fused = Counter(anchor.kind for anchor in sites.find(canonicalize(load_model(output))) if anchor.fused)
        compare(model, session(output, optimized=True), family, load_batches(group.folder / BATCHES), cell)
    except Exception as e:
        return f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    wanted = asdict(family.sites)
    wanted["norm"] -= wanted.pop("inexpressible")
    left = [f"{fused[kind]} of {n} {kind}" for kind, n in wanted.items() if fused[kind] != n]
    return "; ".join([*left, *([cell.crash] if cell.crash else []), *(["outputs differ"] if cell.unequal else [])])


def _transformers(model: Path, output: Path, kind: str) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    optimized = optimize_model(str(model), model_type=kind, num_heads=HEADS, hidden_size=HIDDEN, opt_level=1)
    optimized.save_model_to_file(str(output))


def _fusions(model: Path, output: Path) -> None:
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    optimized, _ = optimize_for_ort(ir.load(model))
    ir.save(optimized, output)


if __name__ == "__main__":
    main(sys.argv[1:])
