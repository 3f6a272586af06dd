"""Which layers a lossy precision takes, so that a budget holds: those that cost most accuracy stay as they are.

Each layer is first quantized alone, and what that costs is measured on the whole model's outputs. The costliest then
stay in the higher precision, as few of them as the budget allows (found by bisection). Source: the idea of mixed
precision by sensitivity is that of Dong et al. 2019 (HAWQ), arXiv:1905.03696; here errors are measured, not estimated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.budget import Budget
from onnxsmith.compiler.closeness import Closeness, Values, compared, logits
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.pipeline import Observer, Outcome, Pass
from onnxsmith.compiler.region import Region, changed
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.switch import PREFIX, switchable
from onnxsmith.errors import BadUsage, CheckFailed
from onnxsmith.passes.engine.provenance import common_module
from onnxsmith.passes.engine.rewrite import Site


@dataclass(frozen=True)
class Layer:
    """Products that are quantized together, what quantizing them alone costs, and whether they were."""

    name: str
    sites: frozenset[Site]
    precision: str
    closeness: list[Closeness]
    taken: bool

    def to_json(self) -> dict[str, object]:
        costs = [c.to_json() for c in self.closeness]
        return {"layer": self.name, "precision": self.precision, "quantized": self.taken, "closeness": costs}


@dataclass
class Search:
    """The pipeline observer that holds lossy passes to a budget, by naming the sites that they must leave alone.

    ``reference`` are the outputs of the model before the first lossy pass, one for each case.
    """

    budget: Budget
    cases: Sequence[Case]
    layers: list[Layer] = field(default_factory=list)
    reference: list[Values] = field(default_factory=list)

    def __call__(self, step: Pass, before: ir.Model, outcome: Outcome) -> Mapping[Site, str]:
        if not step.lossy or not outcome.applied:
            return {}
        if all(layer.precision != step.name for layer in self.layers):
            self.layers += self._search(step.name, before, outcome)
        left = [layer.sites for layer in self.layers if layer.precision == step.name and not layer.taken]
        return dict.fromkeys(frozenset(outcome.applied) & frozenset().union(*left), "left in a higher precision")

    def check(self, found: Sequence[Closeness]) -> None:
        """Raise CheckFailed when no layer at all was taken, or when what came out, ``found``, is beyond the budget."""
        if self.layers and not any(layer.taken for layer in self.layers):
            best = self.layers[-1]
            off = self.budget.shortfall(best.closeness)
            raise CheckFailed(f"the budget {self.budget} cannot be met: with {best.name} alone quantized, {off}")
        if found and not self.budget.holds(found):
            raise CheckFailed(f"the budget {self.budget} does not hold: {self.budget.shortfall(found)}")

    def _search(self, precision: str, before: ir.Model, outcome: Outcome) -> list[Layer]:
        trial = _Trial(before, outcome, self.cases)
        self.reference = self.reference or list(trial.outputs(()))

        def measured(low: Iterable[int]) -> list[Closeness]:
            return compared(zip(self.reference, trial.outputs(low), self.cases, strict=True), logits(before))

        alone = [measured([i]) for i in range(len(trial.parts))]
        if alone and (missing := self.budget.lacking(alone[0])):
            raise BadUsage(f"no output of the model is of logits, which {missing[0]} is for; budget cosine or rms")
        order = sorted(range(len(alone)), key=lambda i: _cost(alone[i]), reverse=True)
        kept = bisect_left(range(len(order)), True, key=lambda k: self.budget.holds(measured(order[k:])))
        return [Layer(*trial.parts[i], precision, alone[i], place >= kept) for place, i in enumerate(order)]


def both(search: Search | None, other: Observer | None) -> Observer | None:
    """The search first, and the other observer once that has nothing more to leave alone."""
    if search is None:
        return other

    def observe(step: Pass, before: ir.Model, outcome: Outcome) -> Mapping[Site, str]:
        return search(step, before, outcome) or (other(step, before, outcome) if other else {})

    return observe


class _Trial:
    """A model before and after a lossy pass, of which any choice of parts can be run."""

    def __init__(self, before: ir.Model, outcome: Outcome, cases: Sequence[Case]) -> None:
        after = outcome.model.clone()
        regions = changed(before, after)
        self.parts = [_part(region, outcome.applied) for region in regions]
        self._cases, self._run = cases, run_model(switchable(before, after, regions))

    def outputs(self, low: Iterable[int]) -> Iterator[Values]:
        """The outputs for each case, with the parts in ``low`` as they are after the pass."""
        chosen = set(low)
        flags = {f"{PREFIX}{i}": np.array(i in chosen) for i in range(len(self.parts))}
        for case in self._cases:
            yield self._run({**case.feeds, **flags})


def _part(region: Region, applied: Sequence[Site]) -> tuple[str, frozenset[Site]]:
    """What a region is called, by the module that it stands for where that is known, and the sites in it."""
    given = {str(v.name) for n in region.nodes for v in n.outputs}
    name = common_module(region.nodes) or ", ".join(region.outputs)
    return name, frozenset(site for site in applied if site.output in given)


def _cost(found: Sequence[Closeness]) -> float:
    """What layers are ranked by: KL divergence where there are logits, else relative RMS error; of the worst output."""
    divergences = [c.kl for c in found if c.kl is not None]
    worst = max(divergences or [c.relative_rms for c in found], default=0.0)
    return math.inf if math.isnan(worst) else worst
