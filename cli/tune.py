"""``onnxsmith tune``: which kernels are fastest on this machine, for `optimize` to use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import console
from onnxsmith.cli import dims as dims_option
from onnxsmith.errors import BadUsage

if TYPE_CHECKING:
    from onnxsmith.compiler.tune_report import Finding, TuneReport
    from onnxsmith.passes.lower.kernels import Interval


@click.command("tune")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, metavar="")
@click.option(
    "--shapes",
    multiple=True,
    metavar="DIM=SIZE,... ...",
    help="Sizes to measure at, in every combination, such as batch=1,8 sequence=32,128.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the model to be made; int8 measures integer products too.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads inside an operator. [default: one per core]")
@dims_option.option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(
    source: Path,
    more: tuple[str, ...],
    shapes: tuple[str, ...],
    precision: str,
    threads: int | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure a model's kernels on this machine.

    Times every choice that optimize has in SOURCE (a folder that onnxsmith or optimum wrote, or an .onnx file, as
    it was exported) and remembers the winners for this machine, ONNX Runtime version and number of threads; optimize
    uses them from then on. Takes a minute or two; nothing else should run meanwhile.
    """
    sizes, named = parse_shapes([*shapes, *more]), dims_option.parse(dims)
    with console.progress(f"tuning {source}") as step:
        report = onnxsmith.tune(source, sizes, precision=precision, threads=threads, dims=named, progress=step)
    if as_json:
        console.emit_json(report.to_json())
    else:
        print_report(report)
    console.note(f"wrote {report.path}")


def parse_shapes(items: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """``["batch=1,8", "sequence=32"]`` as sizes by dimension.

    Raises:
        BadUsage: an item is not a name and positive whole numbers, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for item in items:
        name, _, listed = (part.strip() for part in item.partition("="))
        sizes = [size.strip() for size in listed.split(",")]
        if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise BadUsage(f"--shapes: expected a dimension and its sizes, such as batch=1,8; found {item!r}")
        if name in shapes:
            raise BadUsage(f"--shapes: {name} is given twice; list its sizes together, such as {name}=1,8")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def print_report(report: TuneReport) -> None:
    """One row per alternative and set of sizes, the session options that were tried, and what is kept."""
    columns = ("operator", ">sites", "sizes", ">without us", ">with us", ">time", ">95% interval", "winner", ">gain")
    console.table(f"on {report.machine}", columns, (row for f in report.findings for row in _rows(f)))
    options = (
        (f"{o.key}={o.value}", *_interval(o.overall), "yes" if o.overall.faster else "no") for o in report.options
    )
    console.table("session options, on the whole model", ("option", ">time", ">95% interval", "kept"), options)
    if report.whole is None:
        console.emit("the winners are those of the shipped table")
    else:
        kept = "" if report.kept else ": slower, so none of them is kept"
        console.emit(f"the whole model by the winners, against the shipped table: {report.whole}{kept}")


def _rows(found: Finding) -> Iterator[tuple[str, ...]]:
    """What is said of all sizes together stands in the first row; the gain is the share of the loser's time."""
    ratio, told = found.overall.ratio, found.overall.faster or found.overall.slower
    said = (found.winner, f"{1 - min(ratio, 1 / ratio):.0%}" if told else "")
    for i, t in enumerate(found.timings):
        sizes = ", ".join(f"{name}={size}" for name, size in t.sizes.items())
        head = (found.operator, str(found.count)) if i == 0 else ("", "")
        times = (f"{t.before_us:.0f}", f"{t.after_us:.0f}", f"{t.ratio:.3f}", f"{t.low:.3f}-{t.high:.3f}")
        yield (*head, sizes, *times, *(said if i == 0 else ("", "")))


def _interval(found: Interval) -> tuple[str, str]:
    return f"{found.ratio:.3f}", f"{found.low:.3f}-{found.high:.3f}"
