"""Weights inside an .onnx file, left where they are.

A model saved as one file holds its weights inline; parsing it whole would hold them twice before anything is done.
Their place in the file is found instead, and they are memory-mapped from there like external data.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from onnxsmith.runtime.wire import Field, delimited, fields

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9  # field numbers of onnx.proto
_SMALL_BYTES = 4096  # shapes and scalars stay in the proto


@dataclass(frozen=True)
class Skeleton:
    """A serialized ModelProto without its larger weights, and their (offset, length) in the file by name."""

    proto: bytes
    weights: dict[str, tuple[int, int]]


def skeleton(path: Path) -> Skeleton:
    """Read everything but the larger raw weights of the main graph. Raises ValueError for what is no protobuf."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        weights: dict[str, tuple[int, int]] = {}
        parts = []
        for field in fields(data, 0, len(data)):
            if field.number == _GRAPH:
                parts.append(delimited(_GRAPH, _slim_graph(data, field, weights)))
            else:
                parts.append(data[field.begin : field.end])
        return Skeleton(b"".join(parts), weights)


def _slim_graph(data: mmap.mmap, graph: Field, weights: dict[str, tuple[int, int]]) -> bytes:
    parts = []
    for field in fields(data, graph.start, graph.end):
        large = field.number == _INITIALIZER and field.end - field.start > _SMALL_BYTES
        parts.append(_slim_tensor(data, field, weights) if large else data[field.begin : field.end])
    return b"".join(parts)


def _slim_tensor(data: mmap.mmap, tensor: Field, weights: dict[str, tuple[int, int]]) -> bytes:
    header, name, raw = [], "", None
    for field in fields(data, tensor.start, tensor.end):
        if field.number == _RAW_DATA:
            raw = (field.start, field.end - field.start)
            continue
        if field.number == _NAME:
            name = data[field.start : field.end].decode()
        header.append(data[field.begin : field.end])
    if raw is None:
        return data[tensor.begin : tensor.end]
    weights[name] = raw
    return delimited(_INITIALIZER, b"".join(header))
