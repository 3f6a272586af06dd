"""The inputs of a cell: the example that is exported, and others with left and right padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.coverage.family import VOCABULARY, Family, Input, Output, Sizes

Array = NDArray[Any]
Feeds = dict[str, Array]

# Neither 0 nor 1, which exporters take for constants.
EXAMPLE: Sizes = {"batch": 2, "sequence": 7, "source": 9, "target": 5, "past": 6, "samples": 400}
OTHERS: tuple[Sizes, ...] = (
    {"batch": 3, "sequence": 11, "source": 13, "target": 6, "past": 4, "samples": 560},
    {"batch": 1, "sequence": 5, "source": 4, "target": 10, "past": 9, "samples": 300},
)
EXPORTED = "example"  # how the names of batches of the exported size begin
BATCHES = "batches.npz"  # the file beside the exports that keeps inputs and outputs
_FIRST_ID = 3  # lower ones are padding, start and end


def batches(family: Family, seed: int = 0) -> Iterator[tuple[str, Feeds]]:
    """Named feeds: the example without padding, then each size with padding on either side."""
    rng = np.random.default_rng(seed)
    yield EXPORTED, feeds(family, EXAMPLE, "none", rng)
    for n, sizes in enumerate((EXAMPLE, *OTHERS)):
        for side in ("right", "left"):
            yield f"{EXPORTED if n == 0 else f'other-{n}'}-{side}", feeds(family, sizes, side, rng)


def feeds(family: Family, sizes: Sizes, side: str, rng: np.random.Generator) -> Feeds:
    """One batch: masks padded on one side ("none": not at all), padding tokens where a mask of that shape has zeros."""
    kept: dict[tuple[int | str, ...], Array] = {}
    found: Feeds = {}
    for spec in sorted(family.inputs, key=lambda spec: spec.kind == "ids"):  # ids last: they look at the masks
        shape = tuple(d if isinstance(d, int) else size(d, sizes) for d in spec.dims)
        if spec.kind == "floats":
            found[spec.name] = rng.standard_normal(shape).astype(np.float32)
            continue
        allowed = kept.setdefault(spec.dims, _allowed(shape, side, sizes["sequence"] if "total" in spec.dims else 0))
        if spec.kind == "ids":
            found[spec.name] = np.where(allowed, rng.integers(_FIRST_ID, VOCABULARY, shape), spec.pad)
        else:
            found[spec.name] = allowed.astype(np.int64) if spec.kind == "mask" else ~allowed
    return {spec.name: found[spec.name] for spec in family.inputs}


def size(dim: str, sizes: Sizes) -> int:
    """The size of a named dimension."""
    return sizes["past"] + sizes["sequence"] if dim == "total" else sizes[dim]


def _allowed(shape: tuple[int, ...], side: str, unpadded: int) -> Array:
    """Bool [B, T]; the last ``unpadded`` columns are all allowed. Later rows have more padding; none is all padding."""
    allowed = np.ones(shape, dtype=bool)
    length = shape[1] - unpadded
    for i, row in enumerate(allowed):
        cut = min(length - 1, i * (length // 3) + (shape[0] == 1) * (length // 4))
        if side == "right":
            row[length - cut : length] = False
        elif side == "left":
            row[:cut] = False
    return allowed


def counted(family: Family, output: Output, given: Feeds) -> Array | None:
    """Bool [B, S]: the positions of an output [B, S, ...] that count; None when all do."""
    if output.mask is None:
        return None
    spec: Input = next(spec for spec in family.inputs if spec.name == output.mask)
    values = given[spec.name]
    if spec.kind == "ids":
        return values != spec.pad
    return values == 1 if spec.kind == "mask" else ~values
