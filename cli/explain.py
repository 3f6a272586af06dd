"""``onnxsmith explain``: every site of a model, and why it was fused or not."""

from __future__ import annotations

from pathlib import Path

import click

import onnxsmith
from onnxsmith.cli import console, tables


@click.command("explain")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(path: Path, as_json: bool) -> None:
    """Say what is fused in a model, and why not.

    Lists every attention, norm, activation and feed-forward site. PATH is a folder that
    onnxsmith wrote, or any .onnx file. Nothing is written.
    """
    explanation = onnxsmith.explain(path)
    if as_json:
        console.emit_json(explanation.to_json())
        return
    tables.print_sites(explanation.sites)
    tables.print_coverage(explanation.sites)
