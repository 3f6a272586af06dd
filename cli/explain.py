"""``onnxsmith explain``: every site of a model, and why it was fused or not."""

from __future__ import annotations

from pathlib import Path

import click

import onnxsmith
from onnxsmith.cli import console, tables
from onnxsmith.cli import dims as dims_option
from onnxsmith.errors import BadUsage

KINDS = ("attention", "norm", "activation")


@click.command("explain")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--require", "required", metavar="KIND=COUNT,...", help="Fail unless that many, or all, are fused.")
@click.option("--rule", metavar="NAME", help="Print what a rule looks for and builds.")
@dims_option.option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(path: Path | None, required: str | None, rule: str | None, dims: tuple[str, ...], as_json: bool) -> None:
    """Say what is fused in a model, and why not.

    Lists every attention, norm, activation and feed-forward site. PATH is a folder that
    onnxsmith or optimum wrote, or any .onnx file. Nothing is written.

    --require attention=all,norm=12 makes it a gate: exit code 1 when fewer sites are fused.
    """
    if (path is None) == (rule is None):
        raise BadUsage("give the model to explain, or --rule NAME, and not both")
    if rule is not None:
        from onnxsmith.compiler.explain import documentation

        click.echo(documentation(rule))
        return
    assert path is not None
    gate = parse(required) if required is not None else {}
    explanation = onnxsmith.explain(path, dims=dims_option.parse(dims))
    if as_json:
        console.emit_json(explanation.to_json())
    else:
        tables.print_sites(explanation.sites)
        tables.print_coverage(explanation.sites)
    if gate:
        from onnxsmith.compiler.explain import require

        require(explanation, gate)


def parse(required: str) -> dict[str, int | None]:
    """``attention=all,norm=12`` as counts by kind, None for all. Raises BadUsage for anything else."""
    gate: dict[str, int | None] = {}
    for item in required.split(","):
        kind, _, count = item.strip().partition("=")
        if kind not in KINDS or not (count == "all" or count.isdecimal()):
            raise BadUsage(f"--require {item.strip()!r}: give {' or '.join(KINDS)} = all or a number")
        gate[kind] = None if count == "all" else int(count)
    return gate
