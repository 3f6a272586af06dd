"""Where keys and values of earlier tokens live between two runs.

Shapes: B rows, H heads of keys and values, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.generation.buffers import DeviceCache, SharedCache
from onnxsmith.runtime.generation.interface import Interface
from onnxsmith.runtime.generation.moved import empty, following, moved, taken
from onnxsmith.runtime.session import Provider

Array = NDArray[Any]


class Cache(Protocol):
    """Holds the tokens of B rows."""

    def reset(self, rows: int) -> None:
        """Forget everything; the next run is of so many rows."""

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        """Bind past and present for a run after which there are so many columns."""

    def holds(self, columns: int) -> bool:
        """Whether what was bound for the run before serves for so many columns too."""

    def take(self, binding: ort.IOBinding, first: int) -> None:
        """Keep what the run gave for present, the outputs from the ``first`` of them on."""

    def select(self, rows: Array, columns: int, shared: Array) -> None:
        """Row i becomes what row ``rows[i]`` was, of which ``columns`` are in use.

        Its first ``shared[i]`` columns are the same as what row i was, where there are as many rows as before.
        """

    def truncate(self, columns: int) -> None:
        """Forget all but the first columns."""

    def roll(self, starts: Array, counts: Array) -> None:
        """Of row i, ``counts[i]`` columns from ``starts[i]`` become the first, and the others are forgotten."""

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated."""


def make_cache(interface: Interface, inputs: Sequence[TensorInfo], device: Provider, *, lasting: bool = False) -> Cache:
    """The cache that suits a graph: one buffer, in the memory of its device, where it can append in place.

    ``lasting`` buffers outlive a call.
    """
    pasts = [next(info for info in inputs if info.name == name) for name in interface.past]
    if not interface.in_place:
        return PassedCache(interface, pasts, device)
    if device == "cpu" and not lasting:
        return SharedCache(interface, pasts)
    return DeviceCache(interface, pasts, device, lasting=lasting)


class PassedCache:
    """The present of one run is the past of the next: nothing is copied but by the graph."""

    def __init__(self, interface: Interface, pasts: Sequence[TensorInfo], device: Provider) -> None:
        self._names, self._pasts, self._device = interface, pasts, device
        self._values: list[ort.OrtValue] = []

    def reset(self, rows: int) -> None:
        self._values = [empty(past, rows) for past in self._pasts]

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        for name, value in zip(self._names.past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._names.present:
            binding.bind_output(name, self._device)

    def holds(self, columns: int) -> bool:
        return False

    def take(self, binding: ort.IOBinding, first: int) -> None:
        self._values = list(binding.get_outputs()[first:])

    def select(self, rows: Array, columns: int, shared: Array) -> None:
        if not np.array_equal(rows, np.arange(self._shape[0])):
            self._values = [taken(value, rows, self._device) for value in self._values]

    def truncate(self, columns: int) -> None:
        self._keep(np.zeros(self._shape[0], np.int64), columns)

    def roll(self, starts: Array, counts: Array) -> None:
        self._keep(starts, int(counts.max()))

    @property
    def nbytes(self) -> int:
        return sum(value.tensor_size_in_bytes() for value in self._values)

    @property
    def _shape(self) -> list[int]:
        """[B, H, P, D]"""
        shape: list[int] = self._values[0].shape()
        return shape

    def _keep(self, starts: Array, width: int) -> None:
        """So many columns of each row from where it starts."""
        rows, columns = np.arange(len(starts)), following(starts, width, self._shape[2])
        self._values = [moved(value, rows, columns, width, self._device) for value in self._values]
