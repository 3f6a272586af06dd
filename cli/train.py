"""``onnxsmith train``: a model that learns, from a recipe to a checkpoint that ``onnxsmith export`` takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxsmith.cli import console
from onnxsmith.compiler.figures import need_matplotlib
from onnxsmith.errors import BadInput, BadUsage

if TYPE_CHECKING:
    from onnxsmith.models.training import Recipe, Result

CURVE = "loss.png"


@click.command("train")
@click.argument("recipe", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of each run. [default: the recipe's]")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of weights, order and masks. [default: the recipe's]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the folder.")
@click.option("--list", "listed", is_flag=True, help="List the recipes.")
def command(
    recipe: str | None, output: Path | None, steps: int | None, seed: int | None, resume: bool, listed: bool
) -> None:
    """Train a small model by a recipe, and judge it.

    RECIPE is one of --list, or a TOML file of your own. The folder gets a checkpoint for onnxsmith export, the
    loss curve as loss.png, and what --resume goes on from; a recipe of several runs makes a folder for each.
    How well the model does what it learned is printed, with samples.
    """
    try:
        from onnxsmith.models import training
    except ModuleNotFoundError as e:
        raise BadInput(f"train needs {e.name}, which is not installed: pip install 'onnxsmith[torch]'") from e
    if listed:
        _list(training.read_recipe(name) for name in training.recipe_names())
        return
    if recipe is None or output is None:
        raise BadUsage("give a RECIPE and a folder with -o, or --list")
    need_matplotlib("train")
    _train(training.read_recipe(recipe, steps=steps, seed=seed), output, resume)


def _list(recipes: Iterable[Recipe]) -> None:
    rows = [(one.name, one.title, sum(run.steps for run in one.runs)) for one in recipes]
    console.table("recipes", ("recipe", "what it trains", ">steps"), rows)


def _train(recipe: Recipe, output: Path, resume: bool) -> None:
    from onnxsmith.cli.losses import draw_losses
    from onnxsmith.models.training import train

    found: list[Result] = []
    try:
        with console.progress(recipe.name) as watch:
            for result in train(recipe, output, resume=resume, watch=watch):
                found.append(result)
                _print(result)
    except KeyboardInterrupt:
        console.note(f"stopped; --resume goes on from the last checkpoint in {output}")
        raise
    draw_losses(recipe.title, {result.run.name: result.losses for result in found}, output / CURVE)
    console.note(f"wrote {output}")


def _print(result: Result) -> None:
    for name, value in result.quality.items():
        console.emit(f"{result.run.name}: {name} = {value:.4g}")
    for line in result.samples:
        console.emit(f"    {line}")
