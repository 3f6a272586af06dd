"""What a model takes and gives, and checking arrays against it before ONNX Runtime sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.errors import BadInput

Feeds = Mapping[str, NDArray[Any]]

_DTYPES = {"float": "float32", "double": "float64", "string": "object"}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: numpy dtype name, and per axis a size, a symbolic name, or None for unknown."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]

    @classmethod
    def from_ort(cls, arg: Any) -> TensorInfo:
        """From a ``NodeArg`` of an ONNX Runtime session."""
        element = arg.type.removeprefix("tensor(").removesuffix(")")
        return cls(arg.name, _DTYPES.get(element, element), tuple(arg.shape))

    @property
    def itemsize(self) -> int:
        """Bytes of an element. numpy has no bfloat16."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(dim) for dim in self.dims)}]"


def check_feeds(feeds: Feeds, inputs: Sequence[TensorInfo], bounds: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """The arrays to run a model on, or BadInput that names the first one that does not fit.

    Args:
        feeds: Arrays by input name.
        inputs: What the model declares.
        bounds: Largest size of each symbolic dimension that has one, such as ``{"sequence": 512}``.
    """
    declared = {info.name: info for info in inputs}
    if missing := [name for name in declared if name not in feeds]:
        raise BadInput(f"missing input {', '.join(missing)}; the model takes {_listed(inputs)}")
    if unknown := [name for name in feeds if name not in declared]:
        raise BadInput(f"unknown input {', '.join(unknown)}; the model takes {_listed(inputs)}")
    arrays = {name: np.asarray(feeds[name]) for name in declared}
    sizes: dict[str, int] = {}
    for name, info in declared.items():
        _check_array(arrays[name], info)
        _check_dims(arrays[name], info, bounds, sizes)
    return arrays


def check_ids(arrays: Feeds, vocab_size: int | None) -> None:
    """Token ids lie in the vocabulary, where its size is known. Raises BadInput that names the first that does not."""
    for name in ("input_ids", "decoder_input_ids"):
        array = arrays.get(name)
        if array is None or vocab_size is None:
            continue
        if (outside := array[(array < 0) | (array >= vocab_size)]).size:
            raise BadInput(f"input {name}: expected token ids from 0 to {vocab_size - 1}, found {outside[0]}")


def _listed(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(map(str, infos)) or "no inputs"


def _check_array(array: NDArray[Any], info: TensorInfo) -> None:
    if array.dtype != info.dtype and not (info.dtype == "object" and array.dtype.kind in "UO"):
        raise BadInput(f"input {info.name}: expected dtype {info.dtype}, found {array.dtype}; convert it with astype")
    if array.ndim != len(info.dims):
        raise BadInput(f"input {info.name}: expected {len(info.dims)} axes ({info}), found shape {array.shape}")


def _check_dims(array: NDArray[Any], info: TensorInfo, bounds: Mapping[str, int], sizes: dict[str, int]) -> None:
    """Fixed sizes, bounds, and one size per symbolic name over all inputs (``sizes`` collects them)."""
    for axis, (size, dim) in enumerate(zip(array.shape, info.dims, strict=True)):
        at = f"input {info.name}: axis {axis}"
        if isinstance(dim, int) and size != dim:
            raise BadInput(f"{at}: expected size {dim}, found {size} (shape {array.shape})")
        if not isinstance(dim, str):
            continue
        if size > bounds.get(dim, size):
            raise BadInput(f"{at}: expected {dim} of at most {bounds[dim]}, found {size}; shorten the input")
        if sizes.setdefault(dim, size) != size:
            raise BadInput(f"{at}: expected {dim} of {sizes[dim]} as in another input, found {size}")
