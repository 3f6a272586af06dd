"""Training: a recipe is read, its problem made, and a model fitted to it, with checkpoints to go on from."""

from __future__ import annotations

from onnxsmith.models.training.problem import Problem, TextProblem
from onnxsmith.models.training.recipe import Recipe, Run, read_recipe, recipe_names
from onnxsmith.models.training.train import Result, build_problem, train

__all__ = [
    "Problem",
    "Recipe",
    "Result",
    "Run",
    "TextProblem",
    "build_problem",
    "read_recipe",
    "recipe_names",
    "train",
]
