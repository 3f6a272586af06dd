"""The source text of an encoder-decoder: read once, its keys and values serve every step.

Shapes: C sources, R source tokens, H heads, D head size. There is one for each row, or for as many rows in turn, where
the decoder's graph lets these share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.errors import BadInput
from onnxsmith.runtime.generation.interface import Cross
from onnxsmith.runtime.generation.moved import taken
from onnxsmith.runtime.session import Provider, one_line

Array = NDArray[Any]


class Source:
    """Runs the encoder's graph, and binds what it gives to the decoder's. Keys and values are [C, H, R, D] each."""

    def __init__(self, session: ort.InferenceSession, cross: Cross, *, device: Provider = "cpu") -> None:
        self._session, self._names, self._device = session, cross, device
        self._mask = np.zeros((0, 0), np.int64)
        self._values: list[ort.OrtValue] = []
        self._rows = np.zeros(0, np.int64)  # which text each row reads
        self._held = self._rows  # which text each source is

    def read(self, texts: Sequence[Sequence[int]]) -> None:
        """Take the ids of these texts, a row each. Raises BadInput for texts that a model without a mask cannot pad."""
        longest, shortest = max(map(len, texts)), min(map(len, texts))
        if len(self._names.inputs) == 1 and shortest < longest:
            told = f"texts of {shortest} and of {longest} tokens; generate from them one by one"
            raise BadInput(f"this model takes no mask of its source, so sources of one length, found {told}")
        ids, mask = np.zeros((len(texts), longest), np.int64), np.zeros((len(texts), longest), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        binding = self._session.io_binding()
        for name, array in zip(self._names.inputs, (ids, mask), strict=False):  # the mask only where it takes one
            binding.bind_cpu_input(name, array)
        for name in self._names.outputs:
            binding.bind_output(name, self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's error classes have no common base
            raise BadInput(f"ONNX Runtime fails on this source: {one_line(error)}") from error
        self._values, self._mask = list(binding.get_outputs()), mask
        self._rows = self._held = np.arange(len(texts))

    def bind(self, binding: ort.IOBinding) -> None:
        """What the decoder's graph takes of it."""
        if self._names.mask is not None:
            binding.bind_cpu_input(self._names.mask, self._mask)
        for name, value in zip(self._names.past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)

    def select(self, rows: Array) -> None:
        """Row i becomes what row ``rows[i]`` was. Beams that change places within a text copy nothing."""
        self._rows = self._rows[rows]
        wanted = self._shared() if self._names.shared else self._rows
        if not np.array_equal(wanted, self._held):
            places = np.array([np.flatnonzero(self._held == text)[0] for text in wanted])
            self._mask = self._mask[places]
            self._values = [taken(value, places, self._device) for value in self._values]
        self._held = wanted

    def _shared(self) -> Array:
        """One source for as many rows in turn where that is so, else one for each."""
        starts = np.flatnonzero(np.diff(self._rows, prepend=-1))
        evenly = len(set(np.diff(starts, append=len(self._rows)).tolist())) == 1
        found: Array = self._rows[starts] if evenly else self._rows
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(value.tensor_size_in_bytes() for value in self._values)
