"""Dimensions that the user names: what an exporter left open, or called by different names, and is always equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxsmith.errors import BadInput

Dims = Mapping[str, Sequence[int | str]]


def name_dims(model: ir.Model, dims: Dims) -> ir.Model:
    """Give inputs of a freshly loaded model these dimensions; equal names promise equal sizes.

    What the exporter derived from its own names is dropped and inferred again.

    Raises:
        BadInput: no such input, another number of dimensions, or a size other than the fixed one that it has.
    """
    inputs = {str(v.name): v for v in model.graph.inputs if v.const_value is None}
    for name, wanted in dims.items():
        if name not in inputs:
            raise BadInput(f"no input {name!r} to name the dimensions of; inputs are {', '.join(inputs)}")
        _check(name, inputs[name].shape, wanted)
        inputs[name].shape = ir.Shape(wanted)
    if dims:
        for v in (v for node in model.graph.all_nodes() for v in node.outputs):
            v.shape = None
    return model


def _check(name: str, shape: ir.Shape | None, wanted: Sequence[int | str]) -> None:
    if shape is None:
        return
    if len(shape) != len(wanted):
        raise BadInput(f"input {name} has {len(shape)} dimensions {list(shape)}, {len(wanted)} were named")
    for old, new in zip(shape, wanted, strict=True):
        if isinstance(old, int) and old != new:
            raise BadInput(f"input {name} has a dimension fixed at {old}, which cannot be {new!r}")
