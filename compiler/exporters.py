"""torch.onnx's two exporters behind one function: a module and its task in, an ONNX model in memory out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.canonicalize import share

if TYPE_CHECKING:
    import torch

    from onnxsmith.models.checkpoint import Checkpoint
    from onnxsmith.models.task import ExportTask, TensorSpec

Exporter = Literal["dynamo", "torchscript"]
# The opsets that each writes without a conversion: its default, the oldest, the newest.
_OPSETS: Mapping[str, tuple[int, int, int | None]] = MappingProxyType(
    {"dynamo": (18, 18, None), "torchscript": (17, 9, 20)}
)
_EXAMPLE_SIZES = {"batch": 2, "sequence": 7}  # neither 0 nor 1, which torch.export would take for constants
_OTHER_SIZE = 5


def choose_opset(exporter: str, opset: int | None) -> int:
    """The opset to write: the asked one, or for None the exporter's own.

    Raises BadUsage for an exporter that does not exist and an opset that it cannot write.
    """
    if exporter not in _OPSETS:
        raise BadUsage(f"no exporter {exporter!r}; choose one of {', '.join(_OPSETS)}")
    default, oldest, newest = _OPSETS[exporter]
    if opset is None:
        return default
    if opset < oldest or (newest is not None and opset > newest):
        known = f"{oldest} or later" if newest is None else f"{oldest} to {newest}"
        raise BadUsage(f"no opset {opset}; the {exporter} exporter writes {known}")
    return opset


def to_onnx(found: Checkpoint, exporter: Exporter = "dynamo", opset: int | None = None) -> ir.Model:
    """The module as an ONNX model in memory; its weights are shared with the module, not copied.

    Weights of a module on the meta device are absent from the model; only dynamo can do that.

    Raises:
        BadInput: the exporter fails. BadUsage: as :func:`choose_opset`.
    """
    import torch

    from onnxsmith.compiler import dynamo, torchscript

    opset = choose_opset(exporter, opset)
    trace = dynamo.trace if exporter == "dynamo" else torchscript.trace
    with _quiet(), torch.no_grad():  # with gradients, attention is taken apart in two ways that do not fit together
        try:
            model = trace(found, tuple(_example(spec, found.task.bounds) for spec in found.task.inputs), opset)
        except Exception as e:  # the exporters wrap what user code raises in types of their own
            raise BadInput(f"torch.onnx cannot export the model: {_root_cause(e)}") from e
    if (written := model.opset_imports[""]) != opset:
        raise BadInput(f"torch.onnx cannot write opset {opset}, only {written}; give a lower one")
    _name_dims(model, found.task)
    share(model)  # folding makes a second table of a tied head
    return model


def _name_dims(model: ir.Model, task: ExportTask) -> None:
    """The task's dimensions: the exporters make up names of their own for those that they derive from others."""
    specs = {spec.name: spec for spec in (*task.inputs, *task.outputs)}
    ours: dict[str | None, str | int] = {}
    for value in (*model.graph.inputs, *model.graph.outputs):
        for theirs, dim in zip(value.shape or (), specs[str(value.name)].dims, strict=False):
            if isinstance(theirs, ir.SymbolicDim) and theirs.value is not None:
                ours[theirs.value] = dim
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else ours.get(d.value, d.value) for d in value.shape])


def _example(spec: TensorSpec, bounds: Mapping[str, int]) -> torch.Tensor:
    import torch

    shape = [d if isinstance(d, int) else _example_size(d, bounds) for d in spec.dims]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype))


def _example_size(dim: str, bounds: Mapping[str, int]) -> int:
    sizes = {name: _EXAMPLE_SIZES.get(name, _OTHER_SIZE) for name in dim.split(" + ")}
    return sum(min(size, bounds.get(name, size)) for name, size in sizes.items())


def _root_cause(error: BaseException) -> str:
    """What went wrong at first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk on stdout and through warnings and logs; none of it helps our users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
