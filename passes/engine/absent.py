"""Weights that are not there: a structure has their names, types and shapes, and no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.errors import BadInput

Array = NDArray[Any]


class AbsentWeights(BadInput, FileNotFoundError):
    """Somebody wanted to read them. FileNotFoundError is how libraries know data that is not to be had."""


class AbsentTensor(ir.LazyTensor):
    """A tensor of a known type and shape that cannot be read."""

    def __init__(self, dtype: ir.DataType, shape: ir.Shape, name: str | None = None) -> None:
        super().__init__(self._refuse, dtype=dtype, shape=shape, name=name)

    def __repr__(self) -> str:
        return f"{self._repr_base()}(name={self.name!r})"

    def _refuse(self) -> NoReturn:
        raise AbsentWeights(f"the numbers of {self.name!r} are absent from this structure; export it with its weights")


def derived(
    source: ir.TensorProtocol, compute: Callable[[Array], Array], shape: ir.Shape, dtype: ir.DataType | None = None
) -> ir.TensorProtocol:
    """What ``compute`` makes of a weight, of this shape and (else its own) type: made when read, absent when it is."""
    return combined([source], compute, shape, dtype)


def combined(
    sources: Sequence[ir.TensorProtocol],
    compute: Callable[..., Array],
    shape: ir.Shape,
    dtype: ir.DataType | None = None,
) -> ir.TensorProtocol:
    """What ``compute`` makes of several weights, as :func:`derived`; the first one's type is its own."""
    made = dtype or sources[0].dtype
    if any(isinstance(source, AbsentTensor) for source in sources):
        return AbsentTensor(made, shape)
    return ir.LazyTensor(lambda: ir.tensor(compute(*(source.numpy() for source in sources))), dtype=made, shape=shape)


def joined(sources: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
    """Weights of one type behind each other along their last axis."""
    shapes = [source.shape.numpy() for source in sources]
    shape = ir.Shape((*shapes[0][:-1], sum(s[-1] for s in shapes)))
    return combined(sources, lambda *arrays: np.concatenate(arrays, axis=-1), shape)


@contextmanager
def set_aside(model: ir.Model) -> Iterator[None]:
    """Absent weights of the main graph are plain inputs while the block runs: for passes that read all initializers."""
    graph = model.graph
    absent = [v for v in graph.initializers.values() if isinstance(v.const_value, AbsentTensor)]
    for v in absent:
        assert v.const_value is not None
        v.shape, v.type = ir.Shape(v.const_value.shape.numpy()), ir.TensorType(v.const_value.dtype)
        del graph.initializers[str(v.name)]
        graph.inputs.append(v)
    yield
    for _ in absent:
        graph.inputs.pop()
    for v in absent:
        graph.register_initializer(v)
