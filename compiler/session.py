"""Running a model that is in memory, by way of files that live as long as the session needs them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.steps import as_prompt
from onnxsmith.runtime.session import open_session

Values = dict[str, NDArray[Any]]


def run_model(
    model: ir.Model, *, optimize: bool = False, config: Mapping[str, str] | None = None, threads: int | None = None
) -> Callable[[Mapping[str, NDArray[Any]]], Values]:
    """A function from feeds to outputs by name, on the CPU. ``optimize`` False turns all of ORT's rewriting off.

    ``threads`` are those inside an operator; None leaves it to ONNX Runtime.

    A model with a cache takes the feeds of a text too: then nothing is kept from before. Raises BadInput when ONNX
    Runtime refuses the model.
    """
    session = open_in_memory(model, optimize=optimize, config=config, threads=threads)
    complete = as_prompt(model)
    names = [o.name for o in session.get_outputs()]
    wanted = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}

    def call(feeds: Mapping[str, NDArray[Any]]) -> Values:
        given = {name: value for name, value in complete(feeds).items() if name in wanted}
        return dict(zip(names, session.run(None, given), strict=True))

    return call


def open_in_memory(
    model: ir.Model, *, optimize: bool = False, config: Mapping[str, str] | None = None, threads: int | None = None
) -> ort.InferenceSession:
    """A session of the model on the CPU, with arguments and errors as above."""
    # Handing the weights over in memory (add_initializer) is no way: with optimizations on, ONNX Runtime 1.31 reads
    # some of them from the file that the model names all the same.
    with tempfile.TemporaryDirectory(prefix="onnxsmith-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "model.onnx")
        write_model(path, model)
        return open_session(path, optimize=optimize, config=config or {}, threads=threads)
