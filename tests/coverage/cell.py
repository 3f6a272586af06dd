"""One cell of the matrix: an exported model through our own pipeline, and whether it still computes the same.

Parity is computed here, on inputs that the optimizer has not seen, and not by the optimizer's own verification,
which is turned off: what the rules do is judged, not what a roll-back saves.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxsmith.compiler import sites
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.optimize import optimize
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.sites import Site
from onnxsmith.errors import BadInput, OnnxsmithError
from onnxsmith.runtime.parity import error_ratio, rms
from onnxsmith.runtime.session import one_line, open_session
from tests.coverage.accounts import complaints
from tests.coverage.batches import EXPORTED, Array, Feeds, counted
from tests.coverage.family import Expected, Family, Output

_SAME = 1e-4  # RMS error over RMS above which an export is another function than the module
Run = Callable[[Feeds], Feeds]


@dataclass(frozen=True)
class Batch:
    """Inputs, and what PyTorch makes of them in float64 and in float32, by name."""

    name: str
    given: Feeds
    double: Feeds
    single: Feeds


@dataclass(frozen=True)
class Compared:
    """One output on one batch: how many elements were compared; the figures are those of :class:`ErrorRatio`."""

    batch: str
    output: str
    elements: int
    rms: float
    largest: float
    relative_rms: float
    fine: bool


@dataclass
class Cell:
    """``crash`` is the reason why there is no result; ``notes`` say what is odd about the export itself.

    ``baked`` are the batches whose size the exported graph itself cannot take, ``miscounted`` what the result has more
    or less of than the model's definition, ``unaccounted`` what is wrong with the account of the original's nodes.
    """

    sites: list[Site] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    crash: str = ""
    notes: list[str] = field(default_factory=list)
    baked: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[Site]:
        return [site for site in self.sites if site.status == "missed"]

    @property
    def unequal(self) -> list[Compared]:
        return [one for one in self.compared if not one.fine]

    @property
    def fine(self) -> bool:
        wrong = (self.crash, self.missed, self.miscounted, self.unaccounted, self.unequal)
        return bool(self.compared) and not any(wrong)

    def to_json(self) -> dict[str, Any]:
        return {"fine": self.fine, **asdict(self)}


def check(model: Path, family: Family, batches: list[Batch]) -> Cell:
    """Optimize an exported model for the CPU and compare it with what it was."""
    cell = Cell()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "optimized.onnx")
        try:
            report = optimize(model, output, verify="off")
            cell.sites, cell.miscounted = report.sites, miscounted(report.sites, output, family.sites)
            cell.unaccounted = complaints(model, output)
            candidate = session(output, optimized=True)
        except OnnxsmithError as e:
            cell.crash = one_line(e)
        except Exception as e:  # whatever our own fault is, it is the cell's result
            cell.crash = f"{type(e).__name__}: {one_line(e)}"
    if not cell.crash:
        compare(model, candidate, family, batches, cell)
    return cell


def miscounted(found: list[Site], result: Path, expected: Expected) -> list[str]:
    """What there is not as often as the model's definition says: operators of each kind, inexpressible norms.

    Operators are counted in the result, for two norms of one input share a site, their mean and deviation.
    """
    counts = Counter(anchor.kind for anchor in sites.find(load_model(result)) if anchor.fused)
    counts["inexpressible"] = sum(site.status == "inexpressible" for site in found)
    wanted = {**asdict(expected), "norm": expected.norm - expected.inexpressible}
    return [f"{counts[kind]} {kind} for {n}" for kind, n in wanted.items() if counts[kind] != n]


def compare(model: Path, candidate: Run, family: Family, batches: list[Batch], cell: Cell) -> None:
    """Run both on every batch that the exported graph takes, and add the comparisons to the cell."""
    baseline = _Baseline(model, cell)
    for batch in batches:
        own = baseline.outputs(batch)
        if own is None:
            if batch.name.startswith(EXPORTED):
                cell.crash = f"the original does not run on {batch.name}"
                return
            cell.baked.append(batch.name)
            continue
        same = all(_same(own, batch.single, family, output, batch) for output in family.outputs)
        if not same:
            _note(cell, f"the export is not what PyTorch computes on {batch.name}; it is held to itself")
        truth = batch.double if same and _finite(batch, family) else baseline.reference.run(batch.given)
        try:
            found = candidate(batch.given)
        except Exception as e:
            cell.crash = f"the result does not run on {batch.name}: {one_line(e)}"
            return
        cell.compared += (judge(found, own, truth, family, output, batch) for output in family.outputs)


def judge(found: Feeds, own: Feeds, truth: Feeds, family: Family, output: Output, batch: Batch) -> Compared:
    """The parity rule on the positions that count, of which there must be some; elsewhere finite stays finite."""
    mine, theirs, right = found[output.name], own[output.name], truth[output.name]
    if mine.shape != right.shape or not np.all(np.isfinite(mine) | ~np.isfinite(theirs)):
        return Compared(batch.name, output.name, 0, np.inf, np.inf, np.inf, fine=False)
    mine, theirs, right = (_counting(x, family, output, batch) for x in (mine, theirs, right))
    elements = int(np.sum(np.isfinite(theirs) & np.isfinite(right)))
    ratio = error_ratio(mine, theirs, right)
    figures = (ratio.rms, ratio.largest, ratio.relative_rms)
    return Compared(batch.name, output.name, elements, *figures, fine=ratio.fine and elements > 0)


def _same(own: Feeds, truth: Feeds, family: Family, output: Output, batch: Batch) -> bool:
    mine, right = own[output.name], truth[output.name]
    if mine.shape != right.shape:
        return False
    mine, right = (_counting(x, family, output, batch).astype(np.float64) for x in (mine, right))
    return rms(mine - right) <= _SAME * rms(right)


def _finite(batch: Batch, family: Family) -> bool:
    """Whether the float64 run is of use: a module that casts scores down to float32 makes NaN of float64's lowest."""
    return all(np.isfinite(_counting(batch.double[o.name], family, o, batch)).all() for o in family.outputs)


def _counting(x: Array, family: Family, output: Output, batch: Batch) -> Array:
    positions = counted(family, output, batch.given)
    return x if positions is None else x[positions[:, -x.shape[1] :]]


class _Baseline:
    """The exported model in float32 without any of ONNX Runtime's optimizations, or PyTorch where that refuses it."""

    def __init__(self, model: Path, cell: Cell) -> None:
        self.reference, self.cell = Reference(load_model(model)), cell
        self.run: Run | None = None
        try:
            self.run = session(model, optimized=False)
        except BadInput as e:
            _note(cell, f"ONNX Runtime refuses the original: {one_line(e).partition('model on cpu: ')[2]}")

    def outputs(self, batch: Batch) -> Feeds | None:
        """None where the graph cannot run at the batch's size, whoever runs it: the exporter baked another one in."""
        refused = ""
        if self.run is not None:
            try:
                return self.run(batch.given)
            except Exception as e:
                refused = one_line(e)
        try:
            self.reference.run(batch.given)
        except Exception as e:
            _note(self.cell, f"sizes are baked in; at those of {batch.name}: {refused or one_line(e)}")
            return None
        if refused:
            _note(self.cell, f"ONNX Runtime refuses to run the original: {refused}")
        return batch.single


def session(model: Path, *, optimized: bool) -> Run:
    """A model as a function from inputs to outputs by name; inputs that it does not have are left out."""
    opened = open_session(model, optimize=optimized)
    names, wanted = [o.name for o in opened.get_outputs()], {i.name for i in opened.get_inputs()}

    def run(given: Mapping[str, Array]) -> Feeds:
        results = opened.run(None, {name: value for name, value in given.items() if name in wanted})
        return dict(zip(names, results, strict=True))

    return run


def _note(cell: Cell, text: str) -> None:
    if text not in cell.notes:
        cell.notes.append(text)
