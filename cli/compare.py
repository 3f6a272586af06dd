"""``onnxsmith compare``: several variants of one model, side by side."""

from __future__ import annotations

from pathlib import Path

import click

import onnxsmith
from onnxsmith.cli import console, files, tables
from onnxsmith.errors import BadUsage


@click.command("compare")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--shapes", help="Sizes of the dynamic axes, such as batch=1,sequence=128.")
@click.option("--inputs", type=click.Path(path_type=Path), help="An .npz of tensors, or a .txt of texts, to run.")
@click.option(
    "--pairs",
    type=click.IntRange(min=2),
    default=20,
    show_default=True,
    help="Timed pairs per variant (even).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(paths: tuple[Path, ...], shapes: str | None, inputs: Path | None, pairs: int, as_json: bool) -> None:
    """Compare several variants of a model.

    Shows size, operators, latency and how far the outputs differ. The first of PATHS is the reference.
    """
    if len(paths) < 2:
        raise BadUsage("compare needs two or more models, the reference first")
    sizes = parse_shapes(shapes) if shapes is not None else None
    npz = inputs is not None and inputs.suffix == ".npz"
    with console.working(f"comparing {len(paths)} models"):
        comparison = onnxsmith.compare(
            paths,
            shapes=sizes,
            inputs=files.read_tensors(inputs) if inputs and npz else None,
            texts=files.read_texts(inputs) if inputs and not npz else None,
            pairs=pairs,
        )
    if as_json:
        console.emit_json(comparison.to_json())
    else:
        tables.print_comparison(comparison)


def parse_shapes(text: str) -> dict[str, int]:
    """``"batch=1,sequence=128"`` as a mapping.

    Raises:
        BadUsage: an item is not ``name=positive integer``.
    """
    shapes: dict[str, int] = {}
    for item in text.split(","):
        name, _, size = (part.strip() for part in item.partition("="))
        if not name or not size.isdecimal() or int(size) < 1:
            raise BadUsage(f"--shapes: expected name=size pairs such as batch=1,sequence=128, found {item!r}")
        shapes[name] = int(size)
    return shapes
