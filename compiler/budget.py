"""Budgets: how much accuracy a lossy precision may cost, written as "cosine=0.995" or "kl=0.01,top1=0.97"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxsmith.compiler.closeness import Closeness
from onnxsmith.errors import BadUsage


@dataclass(frozen=True)
class _Metric:
    """``read`` takes the figure from one output; it shall be at least the bound, or else at most."""

    read: Callable[[Closeness], float | None]
    at_least: bool


_METRICS = {
    "cosine": _Metric(lambda c: c.mean_cosine, True),
    "least-cosine": _Metric(lambda c: c.smallest_cosine, True),
    "rms": _Metric(lambda c: c.relative_rms, False),
    "kl": _Metric(lambda c: c.kl, False),
    "top1": _Metric(lambda c: c.top1, True),
}


@dataclass(frozen=True)
class Limit:
    """One metric's bound; the worst output has to keep it."""

    metric: str
    bound: float

    def value(self, found: Sequence[Closeness]) -> float:
        """The worst figure of any output; NaN where no output has one, or one is no number."""
        metric = _METRICS[self.metric]
        values = [value for c in found if (value := metric.read(c)) is not None]
        if not values or any(map(math.isnan, values)):
            return math.nan
        return min(values) if metric.at_least else max(values)

    def excess(self, found: Sequence[Closeness]) -> float:
        """How far beyond the bound the figure lies; at most 0 where it holds, infinite where there is no figure."""
        value = self.value(found)
        if math.isnan(value):
            return math.inf
        return self.bound - value if _METRICS[self.metric].at_least else value - self.bound


@dataclass(frozen=True)
class Budget:
    """Limits that must all hold."""

    limits: tuple[Limit, ...]

    def holds(self, found: Sequence[Closeness]) -> bool:
        return all(limit.excess(found) <= 0 for limit in self.limits)

    def shortfall(self, found: Sequence[Closeness]) -> str:
        """The limits that do not hold, what was measured instead, and by how much it is off."""
        broken = [limit for limit in self.limits if limit.excess(found) > 0]
        return ", ".join(
            f"{limit.metric} is {limit.value(found):.6g} against {limit.bound:g}, off by {limit.excess(found):.2g}"
            for limit in broken
        )

    def lacking(self, found: Sequence[Closeness]) -> list[str]:
        """The metrics that no output has a figure of."""
        read = {limit.metric: _METRICS[limit.metric].read for limit in self.limits}
        return [metric for metric, of in read.items() if all(of(c) is None for c in found)]

    def __str__(self) -> str:
        return ",".join(f"{limit.metric}={limit.bound:g}" for limit in self.limits)


def parse(text: str) -> Budget:
    """``metric=number`` pairs with commas between them. Raises BadUsage that says which metrics there are."""
    limits = [_limit(part.strip(), text) for part in text.split(",")]
    if twice := [limit.metric for i, limit in enumerate(limits) if limit.metric in {m.metric for m in limits[:i]}]:
        raise BadUsage(f"budget {text!r} names {twice[0]} twice; give one number for each metric")
    return Budget(tuple(limits))


def _limit(part: str, text: str) -> Limit:
    metric, _, number = (piece.strip() for piece in part.partition("="))
    if metric not in _METRICS:
        known = ", ".join(_METRICS)
        raise BadUsage(f"budget {text!r}: expected metric=number with a metric of {known}, found {part!r}")
    try:
        bound = float(number)
    except ValueError:
        raise BadUsage(f"budget {text!r}: expected a number after {metric}=, found {number!r}") from None
    if not 0 <= bound <= (1 if _METRICS[metric].at_least else math.inf) or math.isinf(bound):
        allowed = "from 0 to 1" if _METRICS[metric].at_least else "of at least 0"
        raise BadUsage(f"budget {text!r}: expected a {metric} {allowed}, found {number}")
    return Limit(metric, bound)
