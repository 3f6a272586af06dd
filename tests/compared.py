"""A comparison of the toy encoder with its optimized self, without timing anything."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnxsmith
from onnxsmith.compiler.artifact import write_model
from onnxsmith.compiler.compare import Comparison
from tests.toy import encoder


@cache
def compared() -> Comparison:
    """The whole comparison of three variants: the graph, fused, and fused with integer products."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.onnx") for name in ("plain", "fused", "int8")]
        write_model(paths[0], encoder())
        onnxsmith.optimize(paths[0], paths[1], verify="off")
        onnxsmith.optimize(paths[0], paths[2], precision="int8", verify="off")
        found = onnxsmith.compare(paths, shapes={"batch": 2, "sequence": 7}, pairs=2)
    return replace(found, variants=tuple(replace(v, name=Path(v.name).name) for v in found.variants))
