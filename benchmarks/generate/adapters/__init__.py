"""One module an engine: ``open_engine(folder, variant, threads)`` loads a model and gives its ``Generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Said:
    """New ids [B][N]; seconds to the first token of each row, and to the last. ``bytes`` a step reads, if known."""

    ids: list[list[int]]
    first: float
    total: float
    read: int = 0


Generate = Callable[[Ids, int, int], Said]  # prompts; number of new tokens, whatever they are; beams
