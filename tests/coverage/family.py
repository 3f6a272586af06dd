"""What a family of models is: how to build a tiny one, what goes in, what comes out and where it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import nn

VOCABULARY, HIDDEN, INNER, HEADS, POSITIONS = 67, 32, 48, 4, 64
LAYERS = 1
SEVERAL = 2  # layers, where they differ or share something: a bias, weights, a rotary table
HEAD = HIDDEN // HEADS
BOTH: tuple[str, ...] = ("eager", "sdpa")

Sizes = Mapping[str, int]
Dims = tuple[int | str, ...]
Kind = Literal["ids", "mask", "padding", "floats"]


@dataclass(frozen=True)
class Input:
    """One input: its name and dimensions, a number for each that is fixed and a name for each that varies.

    A "mask" is int64 with 1 for what may be attended to; "padding" is bool with True for what may not. ``pad`` is the
    token id at padded positions. The name "total" stands for past + sequence, of which only the past is padded.
    """

    name: str
    dims: Dims
    kind: Kind = "floats"
    pad: int = 0


@dataclass(frozen=True)
class Output:
    """One output; ``mask`` names the input whose padded positions do not count (the last S of its columns)."""

    name: str
    mask: str | None = None


@dataclass(frozen=True)
class Expected:
    """How many sites a model has by its own definition; ``inexpressible`` of its norms equal no standard operator."""

    attention: int
    norm: int
    activation: int
    inexpressible: int = 0


class Builder(Protocol):
    """Makes the module; its repr says all that the module depends on, for it is part of the cache's key."""

    def __call__(self, attention: str) -> nn.Module: ...


@dataclass(frozen=True)
class Family:
    """A row of the matrix.

    ``sites`` are counted in the model's definition, not in an export. ``attention`` are the implementations that the
    model has; ``gate`` marks the families that must all be fused.
    """

    name: str
    build: Builder
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    sites: Expected
    attention: tuple[str, ...] = BOTH
    gate: bool = False


def ids(name: str = "input_ids", length: str = "sequence", pad: int = 0) -> Input:
    """Token ids [B, length]."""
    return Input(name, ("batch", length), "ids", pad)


def mask(name: str = "attention_mask", length: str = "sequence") -> Input:
    """An attention mask [B, length]."""
    return Input(name, ("batch", length), "mask")
