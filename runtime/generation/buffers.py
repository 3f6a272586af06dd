"""Caches in place: one buffer for past and present, into which the graph appends, on the host or on a device.

Shapes: B rows, H heads of keys and values, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.generation.interface import Interface
from onnxsmith.runtime.generation.moved import empty, following, moved
from onnxsmith.runtime.session import Provider

STEP = 256  # columns by which a buffer grows
Array = NDArray[Any]


class Buffers:
    """Buffers [B, H, capacity, D] of keys and values that grow in steps; see ``Cache`` for the methods.

    ``values`` are those of past and present, in turn. ``capacity`` is at least as many columns as are used; it doubles,
    so that growing costs little in the long run, but of a cache that rolls only up to the room that suffices.
    """

    def __init__(self, interface: Interface, pasts: Sequence[TensorInfo]) -> None:
        self._names, self._pasts, self._room = interface, pasts, room(interface)
        self.values: list[ort.OrtValue] = []
        self.capacity = 0
        self._rows = 0

    def reset(self, rows: int) -> None:
        self.values, self.capacity, self._rows = [], 0, rows

    def reach(self, columns: int) -> int:
        """Make room for so many columns; how many there is room for then."""
        if columns > self.capacity:
            used, self.capacity = self.capacity, grown(self.capacity, columns, self._room)
            self._grow(used)
        return self.capacity

    def bind(self, binding: ort.IOBinding, columns: int) -> None:
        self.reach(columns)
        for past, present, value in zip(self._names.past, self._names.present, self.values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)

    def holds(self, columns: int) -> bool:
        return columns <= self.capacity

    def take(self, binding: ort.IOBinding, first: int) -> None:
        """The buffers have it already."""

    def select(self, rows: Array, columns: int, shared: Array) -> None:
        if not np.array_equal(rows, np.arange(self._rows)):
            self._select(rows, columns, shared)
            self._rows = len(rows)

    def truncate(self, columns: int) -> None:
        """The mask alone says what counts."""

    def roll(self, starts: Array, counts: Array) -> None:
        self.capacity = max(int(counts.max()), self._room or 0)
        self._roll(starts, counts)

    @property
    def nbytes(self) -> int:
        return sum(value.tensor_size_in_bytes() for value in self.values)

    def _grow(self, used: int) -> None:
        """Make room for as many columns as the capacity now is; so many there were."""
        raise NotImplementedError

    def _select(self, rows: Array, columns: int, shared: Array) -> None:
        """As ``select``, for rows that are others."""
        raise NotImplementedError

    def _roll(self, starts: Array, counts: Array) -> None:
        """As ``roll``, into buffers of the capacity."""
        raise NotImplementedError


class SharedCache(Buffers):
    """In the computer's own memory, where rows that stay are not copied."""

    def __init__(self, interface: Interface, pasts: Sequence[TensorInfo]) -> None:
        super().__init__(interface, pasts)
        self._buffers: list[Array] = []

    def reset(self, rows: int) -> None:
        super().reset(rows)
        self._buffers = []

    def _grow(self, used: int) -> None:
        old = self._buffers or [np.empty(_shape(past, self._rows), past.dtype) for past in self._pasts]
        self._replace([_copied(buffer[:, :, :used], self.capacity) for buffer in old])

    def _select(self, rows: Array, columns: int, shared: Array) -> None:
        if len(rows) > self._rows:
            self._replace([_copied(buffer[rows, :, :columns], self.capacity) for buffer in self._buffers])
            return
        starts = shared if len(rows) == self._rows else np.zeros_like(rows)
        moves = [(n, row, start) for n, (row, start) in enumerate(zip(rows, starts, strict=True)) if n != row]
        for buffer in self._buffers:
            parts = [buffer[row, :, start:columns].copy() for _, row, start in moves]  # rows may change places
            for (n, _, start), part in zip(moves, parts, strict=True):
                buffer[n, :, start:columns] = part
        if len(rows) < self._rows:
            self._replace([buffer[: len(rows)] for buffer in self._buffers])

    def _roll(self, starts: Array, counts: Array) -> None:
        self._replace([_rolled(buffer, starts, counts, self.capacity) for buffer in self._buffers])

    def _replace(self, buffers: list[Array]) -> None:
        self._buffers = buffers
        self.values = [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers]


class DeviceCache(Buffers):
    """In the memory of a device, where it stays when it is moved.

    What is ``lasting`` keeps buffers for other numbers of rows, and for the next call, so that steps which were
    captured on them can be replayed: of each number at most two, of one capacity, one of which moves into the other.
    """

    def __init__(
        self, interface: Interface, pasts: Sequence[TensorInfo], device: Provider, *, lasting: bool = False
    ) -> None:
        super().__init__(interface, pasts)
        self._device, self._lasting = device, lasting
        self._stock: dict[int, list[list[ort.OrtValue]]] = {}
        self._nbytes = 0  # asking each of many buffers at each step would take long

    @property
    def kept(self) -> list[list[ort.OrtValue]]:
        """All buffers that there are."""
        return [values for known in self._stock.values() for values in known]

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def reset(self, rows: int) -> None:
        super().reset(rows)
        if known := self._stock.get(rows):
            self.values, self.capacity = known[0], known[0][0].shape()[2]

    def _grow(self, used: int) -> None:
        self.values = self.values or [empty(past, self._rows) for past in self._pasts]
        self._take(np.arange(self._rows), used)

    def _select(self, rows: Array, columns: int, shared: Array) -> None:
        self._take(rows, columns)

    def _take(self, rows: Array, columns: int) -> None:
        self._move(rows, np.tile(np.arange(columns), (len(rows), 1)))

    def _roll(self, starts: Array, counts: Array) -> None:
        length = self.values[0].shape()[2]
        self._move(np.arange(len(starts)), following(starts, int(counts.max()), length))

    def _move(self, rows: Array, columns: Array) -> None:
        known = [each for each in self._stock.get(len(rows), []) if each[0].shape()[2] == self.capacity]
        spare = next((each for each in known if each is not self.values), None)
        into = spare or [None] * len(self.values)
        made = [
            moved(value, rows, columns, self.capacity, self._device, place)
            for value, place in zip(self.values, into, strict=True)
        ]
        self.values = made if spare is None else spare
        if self._lasting:
            self._stock[len(rows)] = known if spare is not None else [*known, made]
        self._nbytes = sum(value.tensor_size_in_bytes() for each in self.kept or [made] for value in each)


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


def _shape(past: TensorInfo, rows: int) -> tuple[int, ...]:
    """Of a buffer without a column."""
    _, heads, _, size = past.dims
    return rows, int(heads or 0), 0, int(size or 0)
