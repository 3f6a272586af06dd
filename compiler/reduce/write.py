"""A reduced failure on disk: the model, its inputs, what was expected, and a script of plain onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.atomic import replacing
from onnxsmith.compiler.reduce.trial import Failure, Values
from onnxsmith.runtime.child import INPUTS, MODEL, Setup

EXPECTED, ORIGINAL, SCRIPT = "expected.npz", "original.onnx", "reproduce.py"

_SCRIPT = '''"""{failure!s}

Run it in this folder; it needs numpy and onnxruntime ({version} showed the failure). Exit code 1: it still fails.
Arrays are in the order of the model's inputs and outputs.
"""

import sys

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.{level}
for key, value in {config!r}.items():
    options.add_session_config_entry(key, value)
try:
    session = ort.InferenceSession({model!r}, options, ["CPUExecutionProvider"])
    with np.load({inputs!r}) as arrays:
        feeds = {{i.name: arrays[key] for i, key in zip(session.get_inputs(), arrays)}}
    outputs = session.run(None, feeds)
except Exception as error:
    sys.exit(f"fails: {{error}}")
failed = False
with np.load({expected!r}) as arrays:
    for output, found, key in zip(session.get_outputs(), outputs, arrays):
        truth = arrays[key]
        if found.shape != truth.shape:
            print(f"{{output.name!r}}: shape {{found.shape}}, expected {{truth.shape}}")
            failed = True
            continue
        error = np.sqrt(np.mean((found.astype(np.float64) - truth) ** 2))
        size = np.sqrt(np.mean(truth.astype(np.float64) ** 2))
        print(f"{{output.name!r}}: RMS error {{error:.3g}}, expected values have RMS {{size:.3g}}")
        failed |= not error <= {limit!r} * size
sys.exit(1 if failed else 0)
'''


@dataclass(frozen=True)
class Reduced:
    """A part that fails on the feeds, and where there is one, the ``original``'s same part; ``truth`` is in float64."""

    model: ir.Model
    feeds: Values
    failure: Failure
    original: ir.Model | None = None
    truth: Values = field(default_factory=dict)


def write(folder: Path, found: Reduced, setup: Setup) -> None:
    """Write the folder, whole or not at all."""
    import onnxruntime

    text = _SCRIPT.format(
        failure=str(found.failure).replace("\\", "/").replace('"', "'"),
        version=onnxruntime.__version__,
        level="ORT_ENABLE_ALL" if setup.optimize else "ORT_DISABLE_ALL",
        config=dict(setup.config or {}),
        model=MODEL,
        inputs=INPUTS,
        expected=EXPECTED,
        limit=found.failure.limit,
    )
    with replacing(folder) as made:
        made.mkdir()
        write_model(made / MODEL, found.model)
        if found.original is not None:
            write_model(made / ORIGINAL, found.original)
        np.savez(made / INPUTS, *_ordered(found.model.graph.inputs, found.feeds))
        np.savez(made / EXPECTED, *_ordered(found.model.graph.outputs, found.truth))
        (made / SCRIPT).write_text(text, encoding="utf-8")


def _ordered(values: Iterable[ir.Value], arrays: Values) -> list[NDArray[Any]]:
    return [arrays[str(v.name)] for v in values if str(v.name) in arrays]
