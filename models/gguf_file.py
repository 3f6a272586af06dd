"""Reading GGUF, the format of llama.cpp: metadata, and tensors that are dequantized one by one.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader, ReaderTensor, dequantize
from torch import Tensor

from onnxsmith.errors import BadInput, first_line

T = TypeVar("T")
_Order = Literal["I", "S", "<"]


@dataclass(frozen=True)
class GgufFile:
    """An open file: ``metadata`` by key, and ``shapes`` of the tensors, the outermost dimension first."""

    path: Path
    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    _tensors: Mapping[str, ReaderTensor] = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """Values in float32: memory-mapped where the file has them so, else dequantized anew with each call.

        Raises BadInput for a type that the gguf package cannot dequantize.
        """
        stored = self._tensors[name]
        try:
            values = dequantize(stored.data, stored.tensor_type)
        except NotImplementedError:
            kind = stored.tensor_type.name
            raise BadInput(f"{self.path} has tensor {name!r} of type {kind}, which cannot be dequantized") from None
        return torch.from_numpy(values)

    def get(self, key: str, kind: type[T]) -> T | None:
        """A value of the metadata, None when it is not there. Raises BadInput when it is not of that kind."""
        value = self.metadata.get(key)
        if value is not None and type(value) is not kind:
            raise BadInput(f"{self.path} has {key} = {_short(value)}; one {kind.__name__} was expected")
        return value

    def need(self, key: str, kind: type[T]) -> T:
        """A value of the metadata. Raises BadInput when it is missing or not of that kind."""
        value = self.get(key, kind)
        if value is None:
            raise BadInput(f"{self.path} lacks {key}; convert the model again")
        return value

    def items(self, key: str, kind: type[T]) -> list[T]:
        """A list of the metadata, empty when it is not there. Raises BadInput when it is no list of that kind."""
        values: list[T] = self.get(key, list) or []
        if any(type(value) is not kind for value in values):
            raise BadInput(f"{self.path} has {key} = {_short(values)}; a list of {kind.__name__} was expected")
        return values


def read_gguf(path: Path) -> GgufFile:
    """Open a file; nothing is dequantized yet. Raises BadInput when it is no GGUF, damaged, or one part of several."""
    try:
        reader = _Reader(path, "c")  # copy on write: torch wants memory that it could write to, the file stays as it is
        metadata = {key: value.contents() for key, value in reader.fields.items()}
    except (OSError, ValueError, KeyError, IndexError, OverflowError, RecursionError) as e:
        raise BadInput(f"{path} is no GGUF file, damaged or cut short ({first_line(e)}); fetch it again") from None
    if reader.byte_order != "I":
        raise BadInput(f"{path} is of the other byte order; convert it with gguf-convert-endian")
    if (parts := metadata.get("split.count", 1)) not in (0, 1):
        raise BadInput(f"{path} is one of {parts} parts; join them with llama-gguf-split --merge")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shapes = {name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in tensors.items()}
    return GgufFile(path, metadata, shapes, tensors)


class _Reader(GGUFReader):
    """The package's reader takes whatever lies behind the end of the file for empty; this one raises ValueError."""

    def _get(
        self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: _Order | None = None
    ) -> npt.NDArray[Any]:
        ordered = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        return np.frombuffer(self.data, ordered, int(count), offset)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
