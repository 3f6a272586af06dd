"""``onnxsmith reduce``: a failing model as a few nodes."""

from __future__ import annotations

from pathlib import Path

import click

import onnxsmith
from onnxsmith.cli import console, files


@click.command("reduce")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder for the files.")
@click.option("--against", type=click.Path(path_type=Path), help="The model that PATH should be equal to.")
@click.option("--inputs", type=click.Path(path_type=Path), help="An .npz of tensors that show the failure.")
@click.option("--trials", type=click.IntRange(min=1), default=400, show_default=True, help="Parts to try at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(path: Path, output: Path, against: Path | None, inputs: Path | None, trials: int, as_json: bool) -> None:
    """Shrink a failing model to the nodes that fail.

    PATH is a folder that onnxsmith wrote, or any .onnx file, that ONNX Runtime crashes on or refuses, or whose
    results are wrong. Writes the part that fails, its inputs, and a script of plain onnxruntime that shows it.
    """
    with console.working(f"reducing {path}"):
        found = onnxsmith.reduce(
            path, output, against=against, inputs=files.read_tensors(inputs) if inputs else None, trials=trials
        )
    if as_json:
        console.emit_json(found.to_json())
        return
    rows = [(s.operator, s.name, s.rule or "", str(len(s.origins)), s.module) for s in found.suspects]
    columns = ("operator", "node", "rule", ">stands for", "module")
    console.table(f"{found.nodes_before} nodes reduced to {len(rows)}", columns, rows)
    console.note(f"{found.failure}, on {found.case}")
    console.note(f"wrote {output}: run reproduce.py in it")
