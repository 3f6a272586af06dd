"""Check the exports of one family with one attention implementation, in a process that may die of them:

    python -m benchmarks.coverage.check_cells FAMILY FOLDER CODE EXPORTER...

writes FOLDER/EXPORTER.json; CODE is what the result depends on besides the export.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.coverage.batches import BATCHES
from tests.coverage.cell import Batch, check
from tests.coverage.families import FAMILIES


def main(name: str, folder: Path, code: str, exporters: list[str]) -> None:
    batches = load_batches(folder / BATCHES)
    for exporter in exporters:
        cell = check(folder / f"{exporter}.onnx", FAMILIES[name], batches)
        (folder / f"{exporter}.json").write_text(json.dumps({"code": code, **cell.to_json()}))


def load_batches(path: Path) -> list[Batch]:
    """What export_cells saved."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            batch, part, name = key.split("/", 2)
            found.setdefault(batch, {}).setdefault(part, {})[name] = arrays[key]
    return [Batch(batch, parts["given"], parts["double"], parts["single"]) for batch, parts in found.items()]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
