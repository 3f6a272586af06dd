"""In which order the examples come: a function of the seed and the step alone, so that any step can be gone on from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from onnxsmith.errors import BadInput
from onnxsmith.models.training.problem import Problem
from onnxsmith.models.training.recipe import Run


class SeededBatches(Sampler[list[int]]):
    """Indices of the batches of steps ``first`` to ``last`` (exclusive, from 0).

    Every epoch has another order; what is left of it after the last whole batch is not used.
    """

    def __init__(self, examples: int, batch: int, seed: int, first: int, last: int) -> None:
        self.examples, self.batch, self.seed = examples, batch, seed
        self.steps = range(first, last)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = self.examples // self.batch
        order: list[int] = []
        for step in self.steps:
            epoch, at = divmod(step, per_epoch)
            if at == 0 or not order:
                order = self._order(epoch)
            yield order[at * self.batch : (at + 1) * self.batch]

    def _order(self, epoch: int) -> list[int]:
        order: list[int] = np.random.default_rng((self.seed, epoch)).permutation(self.examples).tolist()
        return order


def load_batches(problem: Problem, run: Run, first: int) -> DataLoader[Any]:
    """The batches from step ``first`` on, as the problem collates them. Raises BadInput for fewer examples than one."""
    count = len(problem.examples)
    if count < run.batch:
        raise BadInput(f"run {run.name} has batch = {run.batch} and {count} examples; take a smaller batch")
    order = SeededBatches(count, run.batch, run.seed, first, run.steps)
    # The loader draws a number whenever it starts: from a generator of its own, not from the one that is saved.
    own = torch.Generator()
    return DataLoader(problem.examples, batch_sampler=order, collate_fn=problem.collate, generator=own)  # type: ignore[arg-type]
