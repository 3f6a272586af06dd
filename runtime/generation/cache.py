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
from onnxsmith.runtime.generation.interface import Interface

STEP = 256  # columns by which a shared buffer grows
Array = NDArray[Any]


class Cache(Protocol):
    """Holds the tokens of B rows."""

    def reset(self, rows: int) -> None:
        """Forget everything; the next run is of so many rows."""

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        """Bind past and present for a run after which there are so many columns, present after one other output."""

    def holds(self, columns: int) -> bool:
        """Whether what was bound for the run before serves for so many columns too."""

    def take(self, binding: ort.IOBinding) -> None:
        """Keep what the run gave for present, the outputs after the first."""

    def select(self, rows: Array, columns: int, shared: int = 0) -> None:
        """Row i becomes what row ``rows[i]`` was, of which ``columns`` are in use.

        The first ``shared`` columns are the same in both, where there are as many rows as before.
        """

    def truncate(self, columns: int) -> None:
        """Forget all but the first columns."""

    def roll(self, starts: Array, counts: Array) -> None:
        """Of row i, ``counts[i]`` columns from ``starts[i]`` become the first, and the others are forgotten."""

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated."""


def make_cache(interface: Interface, inputs: Sequence[TensorInfo], device: str) -> Cache:
    """The cache that suits a graph: one shared buffer where it can append in place, in the computer's own memory."""
    pasts = [next(info for info in inputs if info.name == name) for name in interface.past]
    if interface.in_place and device == "cpu":
        return SharedCache(interface, pasts)
    return PassedCache(interface, pasts, device)


class PassedCache:
    """The present of one run is the past of the next: nothing is copied but by the graph."""

    def __init__(self, interface: Interface, pasts: Sequence[TensorInfo], device: str) -> None:
        self._names, self._pasts, self._device = interface, pasts, device
        self._values: list[ort.OrtValue] = []

    def reset(self, rows: int) -> None:
        self._values = [self._value(np.zeros(_shape(past, rows, 0), past.dtype)) for past in self._pasts]

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        for name, value in zip(self._names.past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._names.present:
            binding.bind_output(name, self._device)

    def holds(self, columns: int) -> bool:
        return False

    def take(self, binding: ort.IOBinding) -> None:
        self._values = list(binding.get_outputs()[1:])

    def select(self, rows: Array, columns: int, shared: int = 0) -> None:
        if not np.array_equal(rows, np.arange(self._rows)):
            self._values = [self._value(value.numpy()[rows]) for value in self._values]

    def truncate(self, columns: int) -> None:
        self._values = [self._value(np.ascontiguousarray(v.numpy()[:, :, :columns])) for v in self._values]

    def roll(self, starts: Array, counts: Array) -> None:
        width = int(counts.max())
        self._values = [self._value(_rolled(v.numpy(), starts, counts, width)) for v in self._values]

    @property
    def nbytes(self) -> int:
        return sum(value.tensor_size_in_bytes() for value in self._values)

    @property
    def _rows(self) -> int:
        return int(self._values[0].shape()[0])

    def _value(self, array: Array) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device)


class SharedCache:
    """One buffer [B, H, capacity, D] for past and present, into which the graph appends; it grows in steps.

    ``capacity`` is at least as many columns as are used; it doubles, so that growing costs little in the long run, but
    of a cache that rolls only up to the room that suffices.
    """

    def __init__(self, interface: Interface, pasts: Sequence[TensorInfo]) -> None:
        self._names, self._pasts, self._room = interface, pasts, room(interface)
        self._buffers: list[Array] = []
        self._values: list[ort.OrtValue] = []
        self.capacity = 0
        self._rows = 0

    def reset(self, rows: int) -> None:
        self._buffers, self._values, self.capacity, self._rows = [], [], 0, rows

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        if columns > self.capacity:
            self._grow(columns)
        for past, present, value in zip(self._names.past, self._names.present, self._values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)

    def holds(self, columns: int) -> bool:
        return columns <= self.capacity

    def take(self, binding: ort.IOBinding) -> None:
        """The buffers have it already."""

    def select(self, rows: Array, columns: int, shared: int = 0) -> None:
        if np.array_equal(rows, np.arange(self._rows)):
            return
        if len(rows) > self._rows:
            self._replace([_copied(buffer[rows, :, :columns], self.capacity) for buffer in self._buffers])
            return
        start = shared if len(rows) == self._rows else 0
        moved = np.flatnonzero(rows != np.arange(len(rows)))
        for buffer in self._buffers:
            buffer[moved, :, start:columns] = buffer[rows[moved], :, start:columns]
        self._replace([buffer[: len(rows)] for buffer in self._buffers])

    def truncate(self, columns: int) -> None:
        """The mask alone says what counts."""

    def roll(self, starts: Array, counts: Array) -> None:
        self.capacity = max(int(counts.max()), self._room or 0)
        self._replace([_rolled(buffer, starts, counts, self.capacity) for buffer in self._buffers])

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers)

    def _grow(self, columns: int) -> None:
        used, self.capacity = self.capacity, grown(self.capacity, columns, self._room)
        old = self._buffers or [np.empty(_shape(past, self._rows, 0), past.dtype) for past in self._pasts]
        self._replace([_copied(buffer[:, :, :used], self.capacity) for buffer in old])

    def _replace(self, buffers: list[Array]) -> None:
        self._buffers, self._rows = buffers, len(buffers[0])
        self._values = [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers]


def room(interface: Interface) -> int | None:
    """Columns with which a cache that rolls does so once in STEP tokens; None for any other."""
    return interface.window + STEP if interface.rolls and interface.window is not None else None


def grown(capacity: int, columns: int, enough: int | None = None) -> int:
    """The next capacity that holds so many columns: twice the last one, or the next multiple of STEP.

    Where some are ``enough``, those instead of more.
    """
    wanted = max(2 * capacity, -(-columns // STEP) * STEP)
    return wanted if enough is None else min(wanted, max(enough, columns))


def _rolled(old: Array, starts: Array, counts: Array, capacity: int) -> Array:
    """A buffer of so many columns whose row i starts with ``counts[i]`` columns of ``old`` from ``starts[i]``."""
    buffer = np.zeros((*old.shape[:2], capacity, old.shape[3]), old.dtype)
    for row, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        buffer[row, :, :count] = old[row, :, start : start + count]
    return buffer


def _copied(old: Array, capacity: int) -> Array:
    """A buffer of so many columns that starts with ``old`` [B, H, P, D]; the others are zero, never NaN."""
    rows, heads, columns, size = old.shape
    buffer = np.zeros((rows, heads, capacity, size), old.dtype)
    buffer[:, :, :columns] = old
    return buffer


def _shape(past: TensorInfo, rows: int, columns: int) -> tuple[int, ...]:
    _, heads, _, size = past.dims
    return rows, int(heads or 0), columns, int(size or 0)
