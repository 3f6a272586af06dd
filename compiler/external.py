"""External data of a model that nobody vouches for: checked, and then named by its absolute path.

onnx_ir checks the files when a tensor is first read, too late for a clear message, and refuses hard links,
which package managers make. It leaves absolute paths to whoever names them: us, once they are checked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxsmith.errors import BadInput


def resolve(proto: onnx.ModelProto, file: Path) -> None:
    """Make external initializers name their file by its absolute path, and external attributes inline.

    Raises:
        BadInput: a data file that is missing or not in the folder of the model ``file``, or does not hold the
            whole tensor.
    """
    found: dict[str, Path] = {}
    initializers, attributes = _tensors(proto)
    for tensors, settle in ((initializers, _name), (attributes, _take_in)):
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                settle(tensor, *_place(tensor, file, found))


def _tensors(proto: onnx.ModelProto) -> tuple[list[onnx.TensorProto], list[onnx.TensorProto]]:
    """The initializers of all graphs, and the tensors in the attributes of all nodes."""
    initializers: list[onnx.TensorProto] = []
    attributes: list[onnx.TensorProto] = []
    graphs, nodes = [proto.graph], [node for function in proto.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            initializers += graph.initializer
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                attributes += [attribute.t, *attribute.tensors]
                graphs += [attribute.g, *attribute.graphs]
    return initializers, attributes


def _place(tensor: onnx.TensorProto, file: Path, found: dict[str, Path]) -> tuple[Path, int, int]:
    """The file, offset and length in bytes of a tensor's data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if location not in found:
        found[location] = _locate(file, location)
    path = found[location]
    offset, length = _extent(tensor, file, entries)
    size = path.stat().st_size
    if offset + length > size:
        raise BadInput(
            f"{file}: {location} has {size} bytes, tensor {tensor.name!r} needs {offset + length}; fetch it again"
        )
    return path, offset, length


def _locate(file: Path, location: str) -> Path:
    # A model that is a link itself may have its data beside its target: caches of downloads are laid out so.
    homes = (os.path.realpath(file.parent), os.path.dirname(os.path.realpath(file)))
    path = Path(os.path.realpath(file.parent / location.replace("\0", "?")))
    if not location or os.path.isabs(location) or not any(path.is_relative_to(home) for home in homes):
        raise BadInput(f"{file}: external data {location!r} lies outside the model's folder; refusing to read it")
    if not path.is_file():
        raise BadInput(f"{file}: the external data file {location!r} is missing; put it beside the model")
    return path


def _extent(tensor: onnx.TensorProto, file: Path, entries: Mapping[str, str]) -> tuple[int, int]:
    """Offset and length in bytes; a stated length must be what type and shape need."""
    try:
        needed = -(-prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", needed))
    except (ValueError, TypeError):
        offset, length, needed = -1, 0, 0
    if offset < 0 or min(tensor.dims, default=0) < 0 or length != needed:
        stated = ", ".join(f"{key}={value[:20]}" for key, value in entries.items() if key != "location")
        raise BadInput(
            f"{file}: external tensor {tensor.name!r} has an impossible place ({stated}); export the model again"
        )
    return offset, length


def _name(tensor: onnx.TensorProto, path: Path, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", path), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _take_in(tensor: onnx.TensorProto, path: Path, offset: int, length: int) -> None:
    with open(path, "rb") as data:
        data.seek(offset)
        tensor.raw_data = data.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
