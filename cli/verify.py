"""``onnxsmith verify``: check an optimized model against its original, independently of the run that made it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import console, files

if TYPE_CHECKING:
    from onnxsmith.compiler.recheck import Verification


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), required=True, help="The original.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Inputs of yours: .npz, or a text a line.")
@click.option("--budget", help="What a lossy model may have cost, as in cosine=0.99.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the inputs made up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(path: Path, against: Path, inputs: Path | None, budget: str | None, seed: int, as_json: bool) -> int:
    """Check an optimized model against its original.

    PATH is what optimize wrote: its files, each rewritten part, and the whole are checked. Every part is run on values
    that the original computes, and its error is compared with the original's own, both against float64. A lossy model
    may be off by twice the RMS error that optimize told, or by its --budget. Exits with 1 where something is wrong.
    """
    with console.working(f"verifying {path}"):
        given = files.read_samples(inputs) if inputs is not None else None
        found = onnxsmith.verify(path, against=against, inputs=given, budget=budget, seed=seed)
    if as_json:
        console.emit_json(found.to_json())
    else:
        _show(found)
    return int(not found.fine)


def _show(found: Verification) -> None:
    from onnxsmith.compiler.report import ParityReport

    columns = ("module", "stands for", "is now", "by", ">rms", ">largest", "verdict")
    console.table(f"{len(found.parts)} parts, {found.cases} inputs", columns, _rows(found))
    for name in found.files:
        console.emit(f"{name} is not the file that the certificate is of")
    if not found.certified:
        console.emit("no certificate beside the model: it was optimized with --verify off, or by itself")
    for e in found.whole:
        console.emit(f"{e.output}: {e}")
    if found.budget is not None:
        console.emit(f"{ParityReport(closeness=found.closeness)}; allowed is {found.budget}")
    console.emit("verified" if found.fine else "not verified")


def _rows(found: Verification) -> Iterator[tuple[object, ...]]:
    for part in found.parts:
        now = ", ".join(f"{count} {name}" if count > 1 else name for name, count in part.now.items())
        rms = max((e.worst.rms for e in part.evidence), default=None)
        largest = max((e.worst.largest for e in part.evidence), default=None)
        shown = ["" if x is None else f"{x:.2f}x" for x in (rms, largest)]
        wrong = "WRONG" if found.budget is None else "lossy"
        verdict = ("fine" if part.fine else wrong) if part.evidence else "in the whole"
        yield part.module, f"{len(part.nodes)} nodes", now, ", ".join(part.rules), *shown, verdict
