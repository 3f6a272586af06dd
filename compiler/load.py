"""Loading an ONNX model that nobody vouches for: weights stay on disk, and nothing outside the folder is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxsmith.compiler.inline import skeleton
from onnxsmith.errors import BadInput
from onnxsmith.runtime.artifact import open_artifact


def load_model(path: str | Path) -> ir.Model:
    """Load a model or an artifact's model; external weights are memory-mapped when they are first used.

    Raises:
        BadInput: nothing there, an empty, truncated or foreign file, no operators, no opset, or external data that
            is missing, too short, or outside the model's folder.
    """
    file = open_artifact(path).model
    proto, weights = _parse(file)
    if not proto.graph.node:
        raise BadInput(f"{file} is not an ONNX model with operators; is it complete, and the right file?")
    if not proto.opset_import:
        raise BadInput(f"{file} names no opset_import; export the model again")
    _check_external(proto, file)
    try:
        model = ir.from_proto(proto)
    except Exception as e:  # onnx_ir raises whatever a malformed graph trips over
        raise BadInput(f"{file} is malformed: {str(e).splitlines()[0]}; export the model again") from e
    ir.external_data.set_base_dir(model.graph, file.parent)
    _map_weights(model, file, weights)
    return model


def _map_weights(model: ir.Model, file: Path, weights: Mapping[str, tuple[int, int]]) -> None:
    """Point the inline weights that parsing left out at their place in the file."""
    for name, (offset, length) in weights.items():
        v = model.graph.initializers[name]
        tensor = v.const_value
        if tensor is None or tensor.nbytes != length:
            raise BadInput(f"{file}: weight {name!r} has {length} bytes, which do not fit its shape; export it again")
        v.const_value = ir.ExternalTensor(
            file.name, offset, length, tensor.dtype, shape=ir.Shape(tensor.shape), name=name, base_dir=file.parent
        )


def _parse(file: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    """The proto without its larger inline weights, and the place of those in the file."""
    try:
        if not file.stat().st_size:
            raise BadInput(f"{file} is empty; export the model again")
        found = skeleton(file)
    except OSError as e:
        raise BadInput(f"{file} cannot be read: {e.strerror}") from None
    except ValueError:
        raise BadInput(f"{file} is truncated or no ONNX file; fetch or export it again") from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(found.proto)
    except DecodeError:
        raise BadInput(f"{file} is truncated or no ONNX file; fetch or export it again") from None
    return proto, found.weights


def _check_external(proto: onnx.ModelProto, file: Path) -> None:
    """Every external tensor lies wholly in a regular file inside the model's folder."""
    folder = file.parent.resolve()
    sizes: dict[str, int] = {}
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        if location not in sizes:
            sizes[location] = _external_size(file, folder, location)
        try:
            offset, length = int(entry.get("offset", 0)), int(entry.get("length", -1))
        except ValueError:
            raise BadInput(f"{file}: tensor {tensor.name!r} has an unreadable place in {location}") from None
        end = offset + (length if length >= 0 else _bytes(tensor))
        if offset < 0 or end > sizes[location]:
            raise BadInput(
                f"{file}: {location} has {sizes[location]} bytes, tensor {tensor.name!r} needs {end}; fetch it again"
            )


def _tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """All tensors, those of subgraphs, functions and attributes included."""
    found: list[onnx.TensorProto] = []
    graphs, nodes = [proto.graph], [n for f in proto.functions for n in f.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            found += graph.initializer
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                found += [attribute.t, *attribute.tensors]
                graphs += [attribute.g, *attribute.graphs]
    return found


def _external_size(file: Path, folder: Path, location: str) -> int:
    path = Path(folder, location)
    if not location or os.path.isabs(location) or not path.resolve().is_relative_to(folder):
        raise BadInput(f"{file}: external data {location!r} lies outside the model's folder; refusing to read it")
    if not path.is_file():
        raise BadInput(f"{file}: the external data file {location!r} is missing; put it beside the model")
    return path.stat().st_size


def _bytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return int(count * ir.DataType(tensor.data_type).bitwidth / 8)
