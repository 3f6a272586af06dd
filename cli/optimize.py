"""``onnxsmith optimize``: from any ONNX Transformer to a faster one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import console, tables
from onnxsmith.cli import dims as dims_option

if TYPE_CHECKING:
    from onnxsmith.compiler.optimize import Verify


@click.command("optimize")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder or .onnx to write.")
@click.option(
    "--target",
    type=click.Choice(["cpu", "onnx"]),
    default="cpu",
    show_default=True,
    help="Where it will run; onnx is any runtime.",
)
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True)
@click.option(
    "--verify",
    type=click.Choice(["final", "each", "off"]),
    default="final",
    show_default=True,
    help="Check the whole result, every rewrite, or nothing.",
)
@click.option("--strict", is_flag=True, help="Fail on a rewrite that breaks parity instead of rolling it back.")
@dims_option.option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def command(
    source: Path,
    output: Path,
    target: str,
    precision: str,
    verify: Verify,
    strict: bool,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make an ONNX Transformer faster, and check it.

    SOURCE is a folder that onnxsmith wrote, or any .onnx file, and is never changed. OUTPUT appears whole or
    not at all. The report says what was fused, what was missed and why, and how exact each rewrite is.
    """
    named = dims_option.parse(dims)
    with console.working(f"optimizing {source} for {target} in {precision} (verify: {verify})"):
        report = onnxsmith.optimize(
            source, output, target=target, precision=precision, verify=verify, strict=strict, dims=named
        )
    if as_json:
        console.emit_json(report.to_json())
    else:
        tables.print_report(report)
    console.note(f"wrote {output}")
