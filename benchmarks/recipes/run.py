"""Every recipe from its first step to int8, and docs/recipes.md of it:

python -m benchmarks.recipes.run [--recipes NAME ...] [--steps N] [--output FOLDER]

What is finished is kept in build/recipes, by the settings of the recipe, so that a run that was interrupted goes on
where it was; delete that folder after a change of the code. Exit code 1 when something does not hold: a model in ONNX
that answers differently, or int8 that is off by more than a point.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from benchmarks.recipes.judge import Judged, Report, faults, judge
from benchmarks.recipes.page import write_page
from onnxsmith.cli import console
from onnxsmith.errors import CheckFailed
from onnxsmith.models.training import Recipe, Result, Run, read_recipe, recipe_names, train

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "recipes"
JUDGED = "judged.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=recipe_names(), default=recipe_names())
    parser.add_argument("--steps", type=int, help="of each run, to try things out")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where recipes.md and its pictures go")
    options = parser.parse_args()
    reports = [make(read_recipe(name, steps=options.steps), BUILD) for name in options.recipes]
    write_page(reports, options.output)
    found = [f"{r.recipe.name}, {run}: {fault}" for r in reports for run, j in r.judged.items() for fault in faults(j)]
    for fault in found:
        console.error(fault)
    sys.exit(CheckFailed.exit_code if found else 0)


def make(recipe: Recipe, build: Path) -> Report:
    """Train and judge what is not done yet, in a folder of its own below ``build``."""
    folder = build / f"{recipe.name}-{_digest(recipe)}"
    report = Report(recipe, folder)
    with console.progress(recipe.name) as watch:
        for result in train(recipe, folder / "runs", resume=True, watch=watch):
            report.results.append(result)
            console.note(f"{recipe.name}, {result.run.name}: {_told(result.quality)} in {result.seconds:.0f} s")
    for result in report.results:
        if _is_last(result.run, recipe) and (judged := _judged(result, folder / result.run.name)):
            report.judged[result.run.name] = judged
    return report


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256("".join(run.digest for run in recipe.runs).encode()).hexdigest()[:12]


def _told(quality: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in quality.items())


def _is_last(run: Run, recipe: Recipe) -> bool:
    """Whether the run is what a recipe is for: what comes of another run, or the only one; the others are beside it."""
    return run.start is not None or len(recipe.runs) == 1


def _judged(result: Result, folder: Path) -> Judged | None:
    """As ``judge``, with the seconds that it took; what was found is kept in the folder."""
    path = folder / JUDGED
    if path.exists():
        kept: Judged | None = json.loads(path.read_text(encoding="utf-8"))
        return kept
    began = time.perf_counter()
    found = judge(result, folder)
    if found is not None:
        found["seconds"] = time.perf_counter() - began
        console.note(", ".join(f"{name}: {_told(one['quality'])}" for name, one in found["variants"].items()))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
