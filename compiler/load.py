"""Loading an ONNX model that nobody vouches for: weights stay on disk, and only its own folder is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from google.protobuf.message import DecodeError

from onnxsmith.compiler import external, wellformed
from onnxsmith.compiler.compose import compose
from onnxsmith.compiler.inline import skeleton
from onnxsmith.errors import BadInput
from onnxsmith.passes.engine.absent import AbsentTensor
from onnxsmith.runtime.artifact import open_artifact

_STANDARD = ("", "ai.onnx")


def load_model(path: str | Path) -> ir.Model:
    """Load a model or an artifact's model; weights are memory-mapped when they are first used.

    A decoder of optimum is loaded with its encoder, as one model; see :func:`compose`.

    Raises:
        BadInput: nothing there, an empty, truncated or foreign file, no operators, no opset, a graph that does not
            hang together, or external data that is missing, too short, or outside the model's folder; or an encoder
            that lacks or does not fit.
    """
    artifact = open_artifact(path)
    model, found = _load(artifact.model, artifact.is_structure), artifact.exported
    if found is None or not found.is_decoder:
        return model
    return compose(model, None if found.encoder is None else _load(found.encoder), artifact)


def _load(file: Path, is_structure: bool = False) -> ir.Model:
    proto, weights = _parse(file)
    if not proto.graph.node:
        raise BadInput(f"{file} is not an ONNX model with operators; is it complete, and the right file?")
    if not any(opset.domain in _STANDARD for opset in proto.opset_import):
        raise BadInput(f"{file} names no opset_import of ONNX's own operators; export the model again")
    if not is_structure:
        external.resolve(proto, file)
    wellformed.check(proto, file)
    try:
        model = ir.from_proto(proto)
        common.TopologicalSortPass()(model)
        _map_weights(model, file, weights)
        if is_structure:
            _forget_weights(model)
    except Exception as e:  # onnx_ir raises whatever a malformed graph trips over
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        raise BadInput(f"{file} is malformed: {reason}; export the model again") from e
    return model


def _map_weights(model: ir.Model, file: Path, weights: Mapping[str, tuple[int, int]]) -> None:
    """Point the inline weights that parsing left out at their place in the file."""
    for name, (offset, length) in weights.items():
        v = model.graph.initializers[name]
        tensor = v.const_value
        if tensor is None or tensor.nbytes != length:
            raise ValueError(f"weight {name!r} has {length} bytes, which do not fit its shape")
        v.const_value = ir.ExternalTensor(
            file.resolve(), offset, length, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )


def _forget_weights(model: ir.Model) -> None:
    """Whatever file a structure names for its weights is never looked at."""
    for graph in model.graphs():
        for v in graph.initializers.values():
            if isinstance(v.const_value, ir.ExternalTensor):
                v.const_value = AbsentTensor(v.const_value.dtype, ir.Shape(v.const_value.shape.numpy()), v.name)


def _parse(file: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    """The proto without its larger inline weights, and the place of those in the file."""
    proto = onnx.ModelProto()
    try:
        if not file.stat().st_size:
            raise BadInput(f"{file} is empty; export the model again")
        found = skeleton(file)
        proto.ParseFromString(found.proto)
    except OSError as e:
        raise BadInput(f"{file} cannot be read: {e.strerror}") from None
    except (ValueError, DecodeError):
        raise BadInput(f"{file} is truncated or no ONNX file; fetch or export it again") from None
    return proto, found.weights
