"""The best tokens of each row, as a graph ranks them.

Shapes: B rows, C ranked tokens of each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


class Ranked(NamedTuple):
    """``values`` float32 [B, C] are log probabilities, the largest first; ``tokens`` int64 [B, C] have them."""

    values: Array
    tokens: Array

    def of(self, rows: slice) -> Ranked:
        """Those of some rows."""
        return Ranked(self.values[rows], self.tokens[rows])

    def without(self, banned: Sequence[Collection[int]]) -> list[tuple[Array, Array]]:
        """Of each row the log probabilities and the tokens that are not banned there."""
        kept = [[id not in ids for id in row] for row, ids in zip(self.tokens.tolist(), banned, strict=True)]
        return [(values[row], tokens[row]) for values, tokens, row in zip(*self, kept, strict=True)]
