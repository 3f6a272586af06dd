"""What other optimizers make of the same exports: onnxruntime.transformers and onnxscript's ort_fusions.

    python -m benchmarks.coverage.peers [FAMILY ...]

takes what ``make coverage`` left under build/ (the gate, with the installed library) and writes
benchmarks/results/coverage-peers.json. A file counts as fused by the rule that ours are held to: every site of the
model's definition is one operator, and the outputs are the same. onnxruntime.transformers wants a model type: the best
result over several counts, since its user would have to find it. The tools run in an environment of their own.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.coverage import report
from benchmarks.coverage.cells import PEERS, ROOT, Group, groups
from benchmarks.coverage.check_cells import load_batches
from benchmarks.coverage.peer import FUSIONS, TRANSFORMERS
from onnxsmith.cli import console
from onnxsmith.compiler import sites
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.canonicalize import canonicalize
from tests.coverage.batches import BATCHES
from tests.coverage.cell import Cell, compare, session
from tests.coverage.families import FAMILIES
from tests.coverage.family import HEADS, HIDDEN

EXPORTERS = ("torchscript-17", "dynamo-18", "dynamo-23")
TOOLS = (TRANSFORMERS, FUSIONS)
_SECONDS = 180


def main(names: list[str]) -> None:
    found = [one for one in _known() if names and one["family"] not in names]  # so that families can be run in turn
    for group in groups():
        if not FAMILIES[group.family].gate or group.library != "5" or (names and group.family not in names):
            continue
        tried = [_tried(group, e) for e in EXPORTERS if (group.folder / f"{e}.onnx").exists()]
        console.note(f"{group.family}, {group.attention}: {[(one['exporter'], one['fused']) for one in tried]}")
        found += tried
        PEERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    report.write()
    fused = Counter(tool for one in found for tool in one["fused"])
    console.note(f"of {len(found)} files, fused with the same outputs: {dict(fused)}")


def _known() -> list[dict[str, Any]]:
    return json.loads(PEERS.read_text(encoding="utf-8")) if PEERS.exists() else []


def _tried(group: Group, exporter: str) -> dict[str, object]:
    """What each tool made of one file: those that fused it whole, and all reasons."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # whatever a tool made may take the process down
        try:
            reasons = pool.apply_async(judge, (group, exporter)).get(_SECONDS)
        except Exception as e:
            reasons = {tool: f"{type(e).__name__}: {e}" for tool in TOOLS}
    return {
        **asdict(group),
        "exporter": exporter,
        "fused": [tool for tool, why in reasons.items() if not why],
        "why": reasons,
    }


def judge(group: Group, exporter: str) -> dict[str, str]:
    """Why each tool's result does not count as fused, "" where it does."""
    model = group.folder / f"{exporter}.onnx"
    python, script = ROOT / "build" / "peers" / "bin" / "python", ROOT / "benchmarks" / "coverage" / "peer.py"
    with tempfile.TemporaryDirectory() as folder:
        words = [python, script, model, folder, HEADS, HIDDEN]
        subprocess.run(list(map(str, words)), timeout=_SECONDS, capture_output=True, check=False)
        verdicts = {path.stem: _verdict(path, group, model) for path in sorted(Path(folder).glob("*.onnx"))}
        verdicts |= {path.stem: path.read_text(encoding="utf-8") for path in Path(folder).glob("*.error")}
    best = {tool: [why for stem, why in verdicts.items() if stem.startswith(tool)] for tool in TOOLS}
    return {tool: min(whys, key=len) if whys else "the process died" for tool, whys in best.items()}


def _verdict(output: Path, group: Group, model: Path) -> str:
    family, cell = FAMILIES[group.family], Cell()
    try:
        fused = Counter(anchor.kind for anchor in sites.find(canonicalize(load_model(output))) if anchor.fused)
        compare(model, session(output, optimized=True), family, load_batches(group.folder / BATCHES), cell)
    except Exception as e:
        return f"{type(e).__name__}: {' '.join(str(e).replace(str(output), output.name).split())[:200]}"
    wanted = asdict(family.sites)
    wanted["norm"] -= wanted.pop("inexpressible")
    left = [f"{fused[kind]} of {n} {kind}" for kind, n in wanted.items() if fused[kind] != n]
    return "; ".join([*left, *([cell.crash] if cell.crash else []), *(["outputs differ"] if cell.unequal else [])])


if __name__ == "__main__":
    main(sys.argv[1:])
