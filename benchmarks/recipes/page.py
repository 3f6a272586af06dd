"""What the recipes have come to, as docs/recipes.md with their loss curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnxsmith
from benchmarks.recipes.judge import BUDGET, FOLDERS, FP32, INT8, RAW, ROWS, SAMPLES, TORCH, Judged, Report
from onnxsmith.cli.attention import draw
from onnxsmith.cli.losses import draw_losses
from onnxsmith.compiler.attention_weights import showing_attention
from onnxsmith.compiler.machine import this_machine
from onnxsmith.models.training import Result

PICTURED = {"translation": "the old cats follow a dog and they are quick"}  # by recipe, what its attention is drawn for
_VARIANTS = (TORCH, RAW, FP32, INT8)
_TIMED = (RAW, FP32, INT8)
_HEAD = f"""# Recipes

Models of every architecture, trained from nothing on data that is made here (MiniLM: from its real weights), and
brought all the way to fast inference. `make recipes` writes this page; `onnxsmith train NAME -o FOLDER` trains one.

## What is left of the quality

Held-out questions, answered by the same model four times. "Same" counts the answers that are PyTorch's own, in the raw
export, optimized in fp32, and in int8. That is calibrated with {SAMPLES} of the examples that were learned from, and as
many layers are int8 as keep the budget `{BUDGET}` on them. "Difference" is how far its figure is from PyTorch's, with
the 95% interval (1.96 standard errors, question by question; 0 where no answer became right or wrong).
"""


def write_page(reports: Sequence[Report], folder: Path) -> None:
    """Write recipes.md, and pictures into recipes/, below the folder."""
    pictures = folder / "recipes"
    pictures.mkdir(parents=True, exist_ok=True)
    for report in reports:
        losses = {result.run.name: result.losses for result in report.results}
        draw_losses(report.recipe.title, losses, pictures / f"{report.recipe.name}.png")
        for run in report.judged if report.recipe.name in PICTURED else ():
            model = showing_attention(onnxsmith.load(report.folder / run / FOLDERS[RAW]))
            maps = model.attention_maps(PICTURED[report.recipe.name])
            draw(maps).savefig(pictures / f"{report.recipe.name}-attention.png", dpi=60)
    (folder / "recipes.md").write_text("\n".join(_lines(reports)) + "\n", encoding="utf-8")


def _lines(reports: Sequence[Report]) -> Iterator[str]:
    judged = [(_name(r, run), one) for r in reports for run, one in r.judged.items()]
    yield _HEAD
    yield from _table(("recipe", "figure", *_VARIANTS, "difference", "same", "int8 layers"), map(_quality, judged))
    yield f"\nMilliseconds for {ROWS} rows, the variants in turn, on {this_machine()}:\n"
    yield from _table(("recipe", *_TIMED), ((name, *_times(one)) for name, one in judged))
    for report in reports:
        yield from _section(report)


def _name(report: Report, run: str) -> str:
    return run if run == report.recipe.name else f"{report.recipe.name}: {run}"


def _table(columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _quality(named: tuple[str, Judged]) -> tuple[str, ...]:
    name, judged = named
    variants, count = judged["variants"], judged["questions"]
    figure = next(iter(variants[TORCH]["quality"]))
    found = (f"{variants[variant]['quality'][figure]:.4g}" for variant in _VARIANTS)
    same = ", ".join(str(variants[variant]["same"]) for variant in _VARIANTS[1:])
    off = f"{judged['difference']:+.2g} ± {judged['interval']:.2g}"
    return name, figure, *found, off, f"{same} of {count}", f"{judged['int8 layers']} of {judged['layers']}"


def _times(judged: Judged) -> Iterator[str]:
    return (f"{judged['variants'][variant]['ms']:.2f}" for variant in _TIMED)


def _section(report: Report) -> Iterator[str]:
    recipe = report.recipe
    yield f"\n## {recipe.name}\n\n{recipe.title}. {report.seconds / 60:.1f} minutes.\n"
    yield from _table(("run", "steps", "quality", "seconds"), map(_run, report.results))
    yield f"\n![losses](recipes/{recipe.name}.png)"
    if recipe.name in PICTURED:
        yield f'\nIts attention for "{PICTURED[recipe.name]}", by `onnxsmith run --attention`:\n'
        yield f"![attention](recipes/{recipe.name}-attention.png)"
    for result in report.results:
        if result.samples:
            title = "It says" if len(report.results) == 1 else f"`{result.run.name}` says"
            yield f"\n{title}:\n\n" + "\n".join(f"    {line}" for line in result.samples)


def _run(result: Result) -> tuple[str, ...]:
    quality = ", ".join(f"{name}: {value:.4g}" for name, value in result.quality.items())
    chosen = f"{result.step} of {result.run.steps}" if result.run.validate_every else str(result.run.steps)
    return result.run.name, chosen, quality, f"{result.seconds:.0f}"
