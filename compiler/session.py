"""Running a model that is in memory: a session whose weights stay where they are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.errors import BadInput

_SMALL_BYTES = 1024  # shapes and scalars stay in the proto, where ONNX Runtime's shape inference needs them
_ABSENT = "weights"
Values = dict[str, NDArray[Any]]


def run_model(
    model: ir.Model, *, optimize: bool = False, config: Mapping[str, str] | None = None
) -> Callable[[Mapping[str, NDArray[Any]]], Values]:
    """A function from feeds to outputs by name, on the CPU. ``optimize`` False turns all of ORT's rewriting off.

    Raises BadInput when ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    proto, weights = detached(model)
    for name, value in weights.items():
        options.add_initializer(name, value)
    session = _open(proto, weights, options)
    names, wanted = [o.name for o in session.get_outputs()], {i.name for i in session.get_inputs()}

    def call(feeds: Mapping[str, NDArray[Any]]) -> Values:
        # The session reads the weights from the arrays in this closure, so they live as long as it does.
        given = {k: v for k, v in feeds.items() if k in wanted and k not in weights}
        return dict(zip(names, session.run(None, given), strict=True))

    return call


def _open(proto: bytes, weights: Mapping[str, ort.OrtValue], options: ort.SessionOptions) -> ort.InferenceSession:
    """The proto names a weights file, which must exist although nothing is read from it: an empty, sparse one."""
    with tempfile.TemporaryDirectory(prefix="onnxsmith-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(proto)
        with open(path.with_name(_ABSENT), "wb") as absent:
            absent.truncate(max((w.tensor_size_in_bytes() for w in weights.values()), default=0))
        try:
            return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # the runtime raises a family of its own types
            raise BadInput(f"ONNX Runtime refuses the model: {str(e).splitlines()[0]}") from e


def detached(model: ir.Model) -> tuple[bytes, dict[str, ort.OrtValue]]:
    """The serialized model with its larger initializers left out as external ones, and those by name."""
    clone = model.clone()
    weights: dict[str, ort.OrtValue] = {}
    for name, v in clone.graph.initializers.items():
        tensor = v.const_value
        if tensor is None or tensor.nbytes <= _SMALL_BYTES:
            continue
        data = np.require(tensor.numpy(), requirements=["C", "ALIGNED"])  # one mapped from a file may be neither
        weights[name] = ort.OrtValue.ortvalue_from_numpy(data)
        v.const_value = ir.ExternalTensor(
            _ABSENT, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=name
        )
    return ir.to_proto(clone).SerializeToString(), weights
