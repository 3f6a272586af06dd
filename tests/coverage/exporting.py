"""Building a family's module, exporting it and running it in PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tests.coverage.batches import Feeds
from tests.coverage.exporters import Exporter
from tests.coverage.family import Family, Input
from tests.coverage.wrappers import Call
from tests.parity import randomized


def build(family: Family, attention: str) -> nn.Module:
    """The family's module with random weights, taking its inputs in order and giving a tensor or several."""
    with _quiet():
        module = family.build(attention)
        return randomized(Call(module, tuple(spec.name for spec in family.inputs), len(family.outputs)))


def program(module: nn.Module, family: Family, example: Feeds) -> ExportedProgram:
    """The module traced for the dynamo exporters; a size that the module turns into a number is baked in."""
    varying = tuple(dict.fromkeys(_dynamic(spec), Dim.AUTO) for spec in family.inputs)
    with _quiet(), torch.no_grad():
        return torch.export.export(module, _arguments(family, example), dynamic_shapes=(varying,), strict=False)


def export(source: nn.Module | ExportedProgram, family: Family, exporter: Exporter, example: Feeds, path: Path) -> None:
    """Write a module, or for dynamo its program, as ``path``. Raises whatever torch.onnx raises."""
    names = {
        "input_names": [spec.name for spec in family.inputs],
        "output_names": [spec.name for spec in family.outputs],
    }
    with _quiet(), torch.no_grad():
        if not isinstance(source, ExportedProgram):
            dynamic = {spec.name: _dynamic(spec) for spec in family.inputs}
            options = {"dynamo": False, "opset_version": exporter.opset, "dynamic_axes": dynamic}
            torch.onnx.export(source, _arguments(family, example), str(path), **options, **names)
            return
        shapes = (tuple(_dynamic(spec) for spec in family.inputs),)
        options = {"opset_version": exporter.opset, "optimize": exporter.optimize, "dynamic_shapes": shapes}
        written = torch.onnx.export(source, dynamo=True, verbose=False, **options, **names)
        assert written is not None
        if (opset := written.model.opset_imports[""]) != exporter.opset:
            raise ValueError(f"the exporter wrote opset {opset} for {exporter.opset}")
        written.save(path)


def _arguments(family: Family, example: Feeds) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(example[spec.name]) for spec in family.inputs)


def _dynamic(spec: Input) -> dict[int, str]:
    return {axis: dim for axis, dim in enumerate(spec.dims) if isinstance(dim, str)}


def torch_outputs(family: Family, module: nn.Module, given: Feeds) -> Feeds:
    """What PyTorch computes, by output name, in the precision of the module's weights."""
    dtype = next(module.parameters()).dtype
    values = [torch.from_numpy(given[spec.name]) for spec in family.inputs]
    with _quiet(), torch.no_grad():
        results = module(*(v.to(dtype) if v.is_floating_point() else v for v in values))
    tensors = results if isinstance(results, tuple) else (results,)
    return {spec.name: t.numpy() for spec, t in zip(family.outputs, tensors, strict=True)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk on stdout, stderr and through warnings and logs."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer, which no exporter knows
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fastpath)
