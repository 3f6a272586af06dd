"""The fast part of the coverage matrix: the gate through both exporters, fused whole, with the same outputs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from torch import nn

from tests.coverage.batches import batches
from tests.coverage.cell import Batch, check
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, program, torch_outputs
from tests.coverage.families import FAMILIES

# Dynamo takes seconds for what takes TorchScript a tenth: where a family has both implementations, it exports one, and
# of most families in the slow tests alone.
QUICK = ("bert", "gpt2", "llama", "t5", "bart")
CELLS = [
    pytest.param(
        family.name,
        attention,
        exporter,
        marks=() if exporter == "torchscript-17" or family.name in QUICK else pytest.mark.slow,
        id=f"{family.name}-{attention}-{exporter}",
    )
    for family in FAMILIES.values()
    if family.gate
    for attention in family.attention
    for exporter in ("torchscript-17", "dynamo-18")
    if exporter == "torchscript-17" or attention == family.attention[-1]
]


@cache
def prepared(family: str, attention: str) -> tuple[nn.Module, list[Batch]]:
    """The module, and what it makes of every batch in both precisions."""
    spec = FAMILIES[family]
    given = list(batches(spec))
    module, double = build(spec, attention), build(spec, attention).double()
    results = [(torch_outputs(spec, double, feeds), torch_outputs(spec, module, feeds)) for _, feeds in given]
    return module, [Batch(name, feeds, *both) for (name, feeds), both in zip(given, results, strict=True)]


@pytest.mark.parametrize("family, attention, exporter", CELLS)
def test_fused_whole_with_the_same_outputs(family: str, attention: str, exporter: str, tmp_path: Path) -> None:
    module, known = prepared(family, attention)
    spec, column, model = FAMILIES[family], EXPORTERS[exporter], tmp_path / "model.onnx"
    export(program(module, spec, known[0].given) if column.dynamo else module, spec, column, known[0].given, model)
    cell = check(model, spec, known)
    assert (cell.crash, cell.missed, cell.miscounted, cell.unaccounted, cell.unequal) == ("", [], [], [], [])
    assert {one.batch for one in cell.compared} == {batch.name for batch in known} - set(cell.baked)


def test_the_fast_part_covers_the_gate() -> None:
    assert len(CELLS) >= 60
    assert {cell.values[0] for cell in CELLS} == {family.name for family in FAMILIES.values() if family.gate}
