"""Weights that are not there: a structure has their names, types and shapes, and no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

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


def derived(source: ir.TensorProtocol, compute: Callable[[Array], Array], shape: ir.Shape) -> ir.TensorProtocol:
    """What ``compute`` makes of a weight, of this shape and its type: made when read, absent when the weight is."""
    if isinstance(source, AbsentTensor):
        return AbsentTensor(source.dtype, shape)
    return ir.LazyTensor(lambda: ir.tensor(compute(source.numpy())), dtype=source.dtype, shape=shape)


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
