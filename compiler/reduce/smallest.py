"""Delta debugging: the smallest part of a list that still fails, where no further piece can be left out.

Source: Zeller and Hildebrandt, Simplifying and isolating failure-inducing input, 2002 (the algorithm ddmin).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def smallest(items: Sequence[T], fails: Callable[[Sequence[T]], bool], trials: int) -> tuple[list[T], int]:
    """A part of ``items``, in order, that fails like the whole, and how often ``fails`` was asked (at most ``trials``).

    Leaving out any one item of the result makes it pass, unless the trials were used up.
    """
    left, asked, pieces = list(items), 0, 2
    known: dict[tuple[int, ...], bool] = {}
    places = {id(item): n for n, item in enumerate(items)}

    def failing(part: Sequence[T]) -> bool:
        nonlocal asked
        key = tuple(places[id(item)] for item in part)
        if key not in known and asked < trials:
            asked += 1
            known[key] = fails(part)
        return known.get(key, False)

    while len(left) > 1:
        size = -(-len(left) // pieces)
        starts = range(0, len(left), size)
        parts = [left[at : at + size] for at in starts]
        rests = [left[:at] + left[at + size :] for at in starts] if pieces > 2 else []
        if (found := next((part for part in parts if failing(part)), None)) is not None:
            left, pieces = found, 2
        elif (found := next((rest for rest in rests if failing(rest)), None)) is not None:
            left, pieces = found, max(pieces - 1, 2)
        elif size == 1:
            break
        else:
            pieces = min(2 * pieces, len(left))
    return left, asked
