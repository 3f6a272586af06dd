"""How the learning rate changes over the steps, as a factor of the recipe's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxsmith.errors import BadInput
from onnxsmith.models.training.tables import Count, nearest


@dataclass(frozen=True)
class Schedule:
    """``kind`` is one of KINDS; over the first ``warmup`` steps the learning rate rises from 0 to the recipe's."""

    kind: str = "constant"
    warmup: Count = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"no schedule {self.kind!r}{nearest(self.kind, KINDS)}")

    def factor(self, step: int, steps: int) -> float:
        """The factor at a step, counted from 1, of so many."""
        if step <= self.warmup:
            return step / self.warmup
        return KINDS[self.kind](step, self.warmup, steps)


def _constant(step: int, warmup: int, steps: int) -> float:
    return 1.0


def _inverse_sqrt(step: int, warmup: int, steps: int) -> float:
    """1 at the end of the warm-up. Vaswani et al. 2017, arXiv:1706.03762, equation 3, whose rate at it is the peak."""
    return float((max(warmup, 1) / step) ** 0.5)


def _linear(step: int, warmup: int, steps: int) -> float:
    """From 1 down, to reach 0 one step after the last. Devlin et al. 2018, arXiv:1810.04805, appendix A.2."""
    return (steps + 1 - step) / (steps + 1 - max(warmup, 1))


KINDS: dict[str, Callable[[int, int, int], float]] = {
    "constant": _constant,
    "inverse-sqrt": _inverse_sqrt,
    "linear": _linear,
}
