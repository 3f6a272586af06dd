"""``onnxsmith bisect``: the rewrite that makes a model's results wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import onnxsmith
from onnxsmith.cli import compiling, console, files
from onnxsmith.cli import dims as dims_option


@click.command("bisect")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--inputs", type=click.Path(path_type=Path), help="Inputs that show it: .npz, or a text a line.")
@click.option("--budget", metavar="METRIC=NUMBER,...", help="What a lossy precision may cost, as optimize takes it.")
@compiling.options
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(
    source: Path, inputs: Path | None, budget: str | None, dims: tuple[str, ...], as_json: bool, **options: Any
) -> int:
    """Name the rewrite that makes results wrong.

    SOURCE is the original. It is compiled with the options of optimize, up to one step and another, until one is
    found that is right before and wrong after. Exits with 1 where there is one.
    """
    with console.working(f"bisecting {source}"):
        found = onnxsmith.bisect(
            source,
            inputs=files.read_samples(inputs) if inputs is not None else None,
            budget=budget,
            dims=dims_option.parse(dims),
            **options,
        )
    if as_json:
        console.emit_json(found.to_json())
    elif found.culprit is None:
        console.emit(f"nothing is wrong after {found.steps} steps, on {found.cases} inputs")
    else:
        culprit = found.culprit
        rows = [(culprit.step, culprit.rule or "", culprit.output or "", culprit.module, ", ".join(culprit.origins))]
        console.table("right before, wrong after", ("pass", "rule", "at", "module", "stands for"), rows)
        console.note(f"{found.why} ({found.judged} of {found.steps} steps judged)")
    return int(found.culprit is not None)
