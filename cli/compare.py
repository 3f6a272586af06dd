"""``onnxsmith compare``: several variants of one model, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import comparison as tables
from onnxsmith.cli import console, files
from onnxsmith.errors import BadUsage, CheckFailed

if TYPE_CHECKING:
    from onnxsmith.compiler.compare import Comparison

WORDS = ("identical", "equivalent", "within budget", "different")


@click.command("compare")
@click.argument("paths", nargs=-1, required=True)
@click.option("--shapes", multiple=True, help="Sizes of the dynamic axes, such as batch=1,sequence=128; repeatable.")
@click.option("--inputs", type=click.Path(path_type=Path), help="An .npz of tensors, or a .txt of texts, to run.")
@click.option("--map", "names", multiple=True, metavar="A=B", help="Call input or output A of the variants B.")
@click.option(
    "--pairs",
    type=click.IntRange(min=2),
    default=40,
    show_default=True,
    help="Timed pairs per variant (even).",
)
@click.option("--quick", is_flag=True, help="No errors by layer, times by operator, memory or first run.")
@click.option("--max-error", type=click.FloatRange(min=0), help="Fail above this relative RMS error.")
@click.option("--budget", help='Fail beyond a budget such as "cosine=0.995".')
@click.option("--min-speedup", type=click.FloatRange(min=0, min_open=True), help="Fail below this speedup.")
@click.option("--require", type=click.Choice(WORDS), help="Fail when a verdict is looser than this.")
@click.option("--save-worst", type=click.Path(path_type=Path), help="A folder for each variant's worst input.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page to look at.")
@click.option("--model-explorer", type=click.Path(path_type=Path), help="Write node mappings for model-explorer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(
    paths: tuple[str, ...],
    shapes: tuple[str, ...],
    inputs: Path | None,
    names: tuple[str, ...],
    pairs: int,
    quick: bool,
    max_error: float | None,
    budget: str | None,
    min_speedup: float | None,
    require: str | None,
    save_worst: Path | None,
    html: Path | None,
    model_explorer: Path | None,
    as_json: bool,
) -> None:
    """Compare several variants of a model.

    PATHS are folders that onnxsmith or optimum wrote, .onnx files, or torch:FOLDER for a checkpoint in PyTorch; the
    first is the reference. Shows a verdict for each, size, operators, errors against float64, latency, and what is
    dominated.
    """
    if len(paths) < 2:
        raise BadUsage("compare needs two or more models, the reference first")
    from onnxsmith.compiler.budget import parse
    from onnxsmith.compiler.compare import Gates, Limits
    from onnxsmith.compiler.figures import PAGE, need_matplotlib

    sizes, renamed = [parse_shapes(text) for text in shapes], parse_names(names)
    gates = Gates(max_error, parse(budget) if budget is not None else None, min_speedup, require)  # type: ignore[arg-type]
    for output in filter(None, (html, model_explorer)):
        files.check_writable(output)
    if html is not None:
        need_matplotlib(PAGE)
    npz = inputs is not None and inputs.suffix == ".npz"
    with console.working(f"comparing {len(paths)} models"):
        comparison = onnxsmith.compare(
            paths,
            shapes=sizes,
            inputs=files.read_tensors(inputs) if inputs and npz else None,
            texts=files.read_texts(inputs) if inputs and not npz else None,
            pairs=pairs,
            names=renamed,
            limits=Limits(gates.max_error, gates.budget),
            quick=quick,
            save_worst=save_worst,
        )
    if as_json:
        console.emit_json(comparison.to_json())
    else:
        tables.print_comparison(comparison)
    _write(comparison, html, model_explorer)
    if failures := gates.failures(comparison):
        raise CheckFailed("; ".join(failures))


def _write(comparison: Comparison, html: Path | None, model_explorer: Path | None) -> None:
    if html is not None:
        from onnxsmith.compiler.compare.page import write_page

        write_page(comparison, html)
        console.note(f"wrote {html}")
    if model_explorer is not None:
        from onnxsmith.compiler.compare.explorer import write_mappings

        for path in write_mappings(comparison, model_explorer):
            console.note(f"wrote {path}")


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


def parse_names(pairs: tuple[str, ...]) -> dict[str, str]:
    """``"a=b"`` each, as a mapping. Raises BadUsage for another form, or a name that is given twice."""
    names: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise BadUsage(f"--map: expected the variant's name=the reference's name, found {pair!r}")
        if ours in names or theirs in names.values():
            raise BadUsage(f"--map: {pair!r} names something for the second time; give each name once")
        names[ours] = theirs
    return names
