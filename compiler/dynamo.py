"""The exporter that goes through torch.export; it can also do without the weights."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxsmith.passes.engine.absent import AbsentTensor

if TYPE_CHECKING:
    import torch

    from onnxsmith.models.checkpoint import Checkpoint

_VARIADIC = inspect.Parameter.VAR_POSITIONAL


def trace(found: Checkpoint, examples: tuple[torch.Tensor, ...], opset: int) -> ir.Model:
    """The module as torch.export sees it; what is on the meta device becomes AbsentTensors."""
    import torch

    structure = any(weight.is_meta for weight in found.module.state_dict().values())
    module, examples = _pretend(found.module, examples) if structure else (found.module, examples)
    program = torch.onnx.export(
        module,
        examples,
        dynamo=True,
        opset_version=opset,
        input_names=[spec.name for spec in found.task.inputs],
        output_names=[spec.name for spec in found.task.outputs],
        dynamic_shapes=_dynamic(found),
        optimize=not structure,  # torch's optimizer reads weights
        verbose=False,
    )
    assert program is not None
    if structure:
        _forget_weights(program.model.graph)
        _fold_transposes(program.model.graph)
    return program.model


def _pretend(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...]
) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The same on fake tensors that claim to be on the CPU: what forward makes from numbers there stays real."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = copy.deepcopy(module)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return module.to_empty(device="cpu"), tuple(torch.ones_like(example) for example in examples)


def _forget_weights(graph: ir.Graph) -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    for v in graph.initializers.values():
        if v.const_value is not None and isinstance(v.const_value.raw, FakeTensor):
            v.const_value = AbsentTensor(v.const_value.dtype, ir.Shape(v.const_value.shape.numpy()), v.name)


def _fold_transposes(graph: ir.Graph) -> None:
    """Store the weights of products as [in, out], as torch's optimizer does where it can read them."""
    for node in [node for node in graph if node.op_type == "Transpose"]:
        v, turned = node.inputs[0], node.outputs[0]
        if v is None or not isinstance(v.const_value, AbsentTensor) or len(v.uses()) > 1:
            continue
        found = v.const_value.shape.numpy()
        shape = ir.Shape([found[axis] for axis in node.attributes["perm"].as_ints()])
        v.const_value, v.shape = AbsentTensor(v.const_value.dtype, shape, v.name), shape
        ir.convenience.replace_all_uses_with(turned, v)
        graph.remove(node, safe=True)


def _dynamic(found: Checkpoint) -> tuple[Any, ...]:
    """For each input, the named dimensions by position; equal names mean equal sizes, and sums follow from the others.

    Inputs that the module takes as ``*args`` stand in a tuple of their own, as torch.export wants them.
    """
    import torch

    task = found.task
    names = {d for spec in task.inputs for d in spec.dims if isinstance(d, str)}
    auto, bounds = torch.export.Dim.AUTO, task.bounds
    dims = {name: auto if "+" in name else torch.export.Dim(name, max=bounds.get(name)) for name in names}
    shapes = tuple({i: dims[d] for i, d in enumerate(s.dims) if isinstance(d, str)} for s in task.inputs)
    kinds = [parameter.kind for parameter in inspect.signature(found.module.forward).parameters.values()]
    rest = kinds.index(_VARIADIC) if _VARIADIC in kinds else len(shapes)
    return (*shapes[:rest], shapes[rest:]) if rest < len(shapes) else shapes
