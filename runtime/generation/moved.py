"""Columns of keys and values moved where they lie: nothing of a cache that is on a GPU passes through the host.

    y = Concat(Gather(Reshape(x, [-1, D]), index), Expand(0, [R, H, capacity - W, D]))

is a graph that a session of its own runs on the device. The host gives ``index`` int64 [R, H, W] alone, which says of
every column of y [R, H, capacity, D] which one of x [B, H, P, D] it is; so one graph takes rows, drops columns and
makes room. It is written here field by field, with the numbers of onnx.proto: the runtime imports no onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.session import PROVIDERS, Provider, session_options
from onnxsmith.runtime.wire import delimited, number

Array = NDArray[Any]
_ELEMENTS = {"float32": 1, "int8": 3, "float16": 10, "bfloat16": 16}  # of TensorProto.DataType
_BYTES = {1: 4, 3: 1, 10: 2, 16: 2}
_INT64, _INT = 7, 2  # of TensorProto.DataType and AttributeProto.AttributeType
_IR_VERSION, _OPSET = 8, 13


def empty(past: TensorInfo, rows: int) -> ort.OrtValue:
    """So many rows of keys or values without a column, on the host."""
    _, heads, _, size = past.dims
    return ort.OrtValue.ortvalue_from_shape_and_type((rows, int(heads or 0), 0, int(size or 0)), _ELEMENTS[past.dtype])


def moved(
    value: ort.OrtValue,
    rows: Array,
    columns: Array,
    capacity: int,
    device: Provider,
    into: ort.OrtValue | None = None,
) -> ort.OrtValue:
    """Of keys or values [B, H, P, D] row i becomes ``columns[i]`` [W] of row ``rows[i]``, and zeros to the capacity.

    They are written ``into`` another tensor of that shape, or a new one.
    """
    _, heads, length, size = value.shape()
    starts = (rows[:, None] * heads + np.arange(heads)) * length
    index = np.ascontiguousarray(starts[:, :, None] + columns[:, None, :], np.int64)
    rest = np.array([len(rows), heads, capacity - columns.shape[1], size])
    given = {"index": index, "flat": np.array([-1, size]), "rest": rest}
    return _run(_mover(value.element_type(), device), value, device, given, into)


def taken(value: ort.OrtValue, rows: Array, device: Provider) -> ort.OrtValue:
    """Of any tensor [B, ...]: row i becomes what row ``rows[i]`` was."""
    return _run(_taker(value.element_type(), device), value, device, {"index": rows})


def following(starts: Array, width: int, length: int) -> Array:
    """Of each row so many columns from where it starts, int64 [B, W], of a buffer of that length.

    Where a row ends before, what is there does not count, but it is a number.
    """
    found: Array = np.minimum(starts[:, None] + np.arange(width), length - 1)
    return found


def _run(
    session: ort.InferenceSession,
    x: ort.OrtValue,
    device: Provider,
    given: Mapping[str, Array],
    into: ort.OrtValue | None = None,
) -> ort.OrtValue:
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    for name, array in given.items():
        binding.bind_cpu_input(name, array)
    if into is None:
        binding.bind_output("y", device)
    else:
        binding.bind_ortvalue_output("y", into)
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0] if into is None else into


@cache
def _mover(element: int, device: Provider) -> ort.InferenceSession:
    nodes = [
        _node("Reshape", ["x", "flat"], "features"),
        _node("Gather", ["features", "index"], "kept"),
        _node("Expand", ["zero", "rest"], "room"),
        _node("Concat", ["kept", "room"], "y", axis=2),
    ]
    zero = number(1, 1) + number(2, element) + _text(8, "zero") + delimited(9, bytes(_BYTES[element]))
    return _session([*nodes, delimited(5, zero)], element, ["index", "flat", "rest"], device)


@cache
def _taker(element: int, device: Provider) -> ort.InferenceSession:
    return _session([_node("Gather", ["x", "index"], "y")], element, ["index"], device)


def _session(parts: Sequence[bytes], element: int, numbers: Sequence[str], device: Provider) -> ort.InferenceSession:
    """Of a graph from x and inputs of int64 to y."""
    values = [_value(11, "x", element), *(_value(11, name, _INT64) for name in numbers), _value(12, "y", element)]
    opset = _text(1, "") + number(2, _OPSET)
    graph = delimited(7, b"".join([*parts, _text(2, "moved"), *values]))
    model = number(1, _IR_VERSION) + graph + delimited(8, opset)
    return ort.InferenceSession(model, session_options(1), [PROVIDERS[device]])


def _node(op_type: str, inputs: Sequence[str], output: str, **attributes: int) -> bytes:
    parts = [_text(1, name) for name in inputs] + [_text(2, output), _text(4, op_type)]
    told = [_text(1, name) + number(3, value) + number(20, _INT) for name, value in attributes.items()]
    return delimited(1, b"".join(parts + [delimited(5, attribute) for attribute in told]))


def _value(field: int, name: str, element: int) -> bytes:
    """An input or output of any shape."""
    kind = delimited(1, number(1, element))
    return delimited(field, _text(1, name) + delimited(2, kind))


def _text(field: int, text: str) -> bytes:
    return delimited(field, text.encode())
