"""``onnxsmith optimize``: from any ONNX Transformer to a faster one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import onnxsmith
from onnxsmith.cli import compiling, console, files, tables
from onnxsmith.cli import dims as dims_option

if TYPE_CHECKING:
    from onnxsmith.compiler.optimize import Verify


@click.command("optimize")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder or .onnx to write.")
@compiling.options
@click.option(
    "--calibrate",
    "samples",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Inputs of yours: .npz, or a text a line. Half of them calibrate, the others judge.",
)
@click.option(
    "--budget",
    metavar="METRIC=NUMBER,...",
    help="Leave layers in higher precision until this holds: cosine, least-cosine, rms, kl, top1.",
)
@click.option(
    "--verify",
    type=click.Choice(["final", "each", "off"]),
    default="final",
    show_default=True,
    help="Check the whole result, every rewrite, or nothing.",
)
@click.option(
    "--tuned/--no-tuned", default=True, show_default=True, help="Use what onnxsmith tune measured on this machine."
)
@click.option("--split", is_flag=True, help="With --cache: a model for prompts, in int8, beside the one for tokens.")
@click.option(
    "--cache-precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="With --cache and --calibrate, on cpu: int8 keeps keys and values in a quarter of the bytes.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that tune measured with. [default: one per core]")
@click.option("--strict", is_flag=True, help="Fail on a rewrite that breaks parity instead of rolling it back.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def command(
    source: Path,
    output: Path,
    target: str,
    precision: str,
    samples: Path | None,
    budget: str | None,
    verify: Verify,
    tuned: bool,
    threads: int | None,
    split: bool,
    strict: bool,
    dims: tuple[str, ...],
    as_json: bool,
    **others: Any,
) -> None:
    """Make an ONNX Transformer faster, and check it.

    SOURCE is a folder that onnxsmith or optimum wrote, or any .onnx file, and is never changed. OUTPUT appears
    whole or not at all. The report says what was fused, what was missed and why, and how exact each rewrite is.
    """
    from onnxsmith.compiler.split import optimize_split

    named = dims_option.parse(dims)
    make = optimize_split if split else onnxsmith.optimize
    with console.working(f"optimizing {source} for {target} in {precision} (verify: {verify})"):
        report = make(
            source,
            output,
            target=target,
            precision=precision,
            verify=verify,
            strict=strict,
            dims=named,
            calibrate=files.read_samples(samples) if samples is not None else None,
            budget=budget,
            tuned=tuned,
            threads=threads,
            **others,
        )
    if as_json:
        console.emit_json(report.to_json())
    else:
        tables.print_report(report)
    console.note(f"wrote {output}")
