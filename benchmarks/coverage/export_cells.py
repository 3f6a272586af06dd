"""Export one family with one attention implementation by every exporter, and keep what PyTorch computes beside it.

A process of its own, so that it can run with another version of the transformers library on the path:

    python -m benchmarks.coverage.export_cells FAMILY ATTENTION FOLDER EXPORTER...

writes FOLDER/EXPORTER.onnx (or FOLDER/EXPORTER.error with the reason) and FOLDER/batches.npz.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
from torch import nn
from torch.export import ExportedProgram

from tests.coverage.batches import BATCHES, Feeds, batches
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, program, torch_outputs
from tests.coverage.families import FAMILIES
from tests.coverage.family import Family


def main(name: str, attention: str, folder: Path, exporters: list[str]) -> None:
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    _, example = next(iter(batches(family)))

    def fresh() -> nn.Module:
        return build(family, attention)  # for each, since tracing may leave tensors of its own in a module

    @cache
    def traced() -> ExportedProgram:
        return program(fresh(), family, example)

    for exporter in map(EXPORTERS.__getitem__, exporters):
        path, partial = folder / f"{exporter.name}.onnx", folder / "partial.onnx"
        try:
            export(traced() if exporter.dynamo else fresh(), family, exporter, example, partial)
            partial.rename(path)
        except Exception as e:  # a cell that the exporter itself cannot make
            path.with_suffix(".error").write_text(_root(e))
    if not (folder / BATCHES).exists():
        save_batches(family, fresh(), folder / BATCHES)


def save_batches(family: Family, module: nn.Module, path: Path) -> None:
    """All inputs, and the outputs in float32 and float64; the module is in float64 afterwards."""
    given = list(batches(family))
    arrays = {f"{batch}/given/{name}": value for batch, feeds in given for name, value in feeds.items()}
    single = _outputs("single", family, module, given)
    try:
        double = _outputs("double", family, module.double(), given)
    except RuntimeError:  # some modules only run in float32; not a number is what others give
        double = {key.replace("/single/", "/double/"): np.full_like(x, np.nan) for key, x in single.items()}
    arrays |= single | double
    np.savez(path.with_name("partial.npz"), **arrays)
    path.with_name("partial.npz").rename(path)


def _outputs(precision: str, family: Family, module: nn.Module, given: list[tuple[str, Feeds]]) -> Feeds:
    return {
        f"{batch}/{precision}/{name}": value
        for batch, feeds in given
        for name, value in torch_outputs(family, module, feeds).items()
    }


def _root(error: BaseException) -> str:
    """The first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
