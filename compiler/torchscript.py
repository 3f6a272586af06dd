"""The exporter that records one run of the module: older than dynamo, and it takes models that dynamo does not.

Its proto is made without the weights, which are then attached by name: the model shares them, and is not held to
protobuf's limit of 2 GB.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    import torch

    from onnxsmith.models.checkpoint import Checkpoint


def trace(found: Checkpoint, examples: tuple[torch.Tensor, ...], opset: int) -> ir.Model:
    """The operators that ran on the examples."""
    import torch

    specs = (*found.task.inputs, *found.task.outputs)
    file = io.BytesIO()
    with _more_operators(opset):
        torch.onnx.export(
            found.module,
            examples,
            file,  # type: ignore[arg-type]  # declared for paths alone; in-memory files are documented
            dynamo=False,
            opset_version=opset,
            export_params=False,
            do_constant_folding=False,  # it would copy weights, and turn them into inputs without a name of ours
            input_names=[spec.name for spec in found.task.inputs],
            output_names=[spec.name for spec in found.task.outputs],
            dynamic_axes={s.name: {i: d for i, d in enumerate(s.dims) if isinstance(d, str)} for s in specs},
        )
    model = ir.from_proto(onnx.load_from_string(file.getvalue()))
    _attach(model, found)
    return model


def _attach(model: ir.Model, found: Checkpoint) -> None:
    """Graph inputs that are weights become initializers."""
    from onnx_ir.tensor_adapters import TorchTensor

    weights = found.module.state_dict(keep_vars=True)
    inputs = {spec.name for spec in found.task.inputs}
    for v in [v for v in model.graph.inputs if v.name not in inputs]:
        model.graph.inputs.remove(v)
        v.const_value = TorchTensor(weights[str(v.name)], name=v.name)
        model.graph.register_initializer(v)


@contextlib.contextmanager
def _more_operators(opset: int) -> Iterator[None]:
    """Operators of PyTorch that its TorchScript exporter has no translation for."""
    from torch.onnx import symbolic_helper, utils

    translation = symbolic_helper.parse_args("v", "is", "v", "f")(_rms_norm)
    utils.register_custom_op_symbolic("aten::rms_norm", translation, opset)
    try:
        yield
    finally:
        utils.unregister_custom_op_symbolic("aten::rms_norm", opset)


def _rms_norm(g: Any, x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    """x / sqrt(mean(x²) + eps) * weight over the last dimensions. Zhang and Sennrich 2019, arXiv:1910.07467.

    Narrow types are computed in float32, as PyTorch does; so is its default epsilon.
    """
    import torch

    dtype = x.type().dtype()
    narrow = dtype in (torch.float16, torch.bfloat16)
    wide = torch.float32 if narrow else dtype
    x = g.op("Cast", x, to_i=ir.DataType.FLOAT.value) if narrow else x
    square = _mean(g, g.op("Mul", x, x), list(range(-len(normalized_shape), 0)))
    constant = torch.tensor(torch.finfo(wide).eps if eps is None else eps, dtype=wide)
    normal = g.op("Div", x, g.op("Sqrt", g.op("Add", square, g.op("Constant", value_t=constant))))
    normal = (
        g.op("Cast", normal, to_i=(ir.DataType.FLOAT16 if dtype == torch.float16 else ir.DataType.BFLOAT16).value)
        if narrow
        else normal
    )
    return normal if weight.node().mustBeNone() else g.op("Mul", normal, weight)


def _mean(g: Any, x: Any, axes: list[int]) -> Any:
    import torch

    if g.opset < 18:
        return g.op("ReduceMean", x, axes_i=axes)
    return g.op("ReduceMean", x, g.op("Constant", value_t=torch.tensor(axes)))
