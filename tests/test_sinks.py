"""Attention in place by the plain kernel: which operators get a sink, and that it changes nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.lower.sinks import NAME, sinks
from tests.toy import parsed

_HEADER = """
<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
g (float[B,S,64] q, float[B,S,32] k, float[B,S,32] v, float[B,2,P,16] pk, float[B,2,P,16] pv, float[1,4,S,T] bias,
   int32[B] ends, int32 total) => (float[B,S,64] y, float[B,2,T,16] k_all, float[B,2,T,16] v_all)
"""
_OUTPUTS = "y, k_all, v_all = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2%s>"
_APPENDING = _OUTPUTS + "(q, k, v, pk, pv, ends, total, , , , %s)"


def model(call: str) -> ir.Model:
    made = parsed(_HEADER + "{ " + call + " }", {})
    for node in made.graph:
        node.outputs[0].dtype = ir.DataType.FLOAT
    name_nodes(made)
    return made


def feeds(new: int, past: int, rows: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    total = past + new
    shapes = {"q": (rows, new, 64), "k": (rows, new, 32), "v": (rows, new, 32), "bias": (1, 4, new, total)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    cached = {name: rng.normal(size=(rows, 2, past, 16)).astype(np.float32) for name in ("pk", "pv")}
    ends = np.array([total - 1 - row * (past == 0) for row in range(rows)], np.int32)
    return made | cached | {"ends": ends, "total": np.array(total, np.int32)}


@pytest.mark.parametrize("settings", ["", ", local_window_size=3"])
@pytest.mark.parametrize("bias", ["", "bias"])
@pytest.mark.parametrize(("new", "past", "rows"), [(9, 0, 2), (5, 4, 1), (1, 8, 2), (1, 0, 1)])
def test_a_sink_changes_nothing(settings: str, bias: str, new: int, past: int, rows: int) -> None:
    plain, given = model(_APPENDING % (settings, bias)), feeds(new, past, rows)
    changed = plain.clone()
    (remark,) = sinks(changed)
    assert remark.rule == NAME and "1 layers" in remark.reason
    assert sinks(changed) == []
    found, expected = run_model(changed)(given), run_model(plain)(given)
    counted = given["ends"][:, None] - past + 1 > np.arange(new)  # of a shorter row, the rest is padding
    np.testing.assert_allclose(found["y"][counted], expected["y"][counted], rtol=1e-5, atol=1e-6)
    for name in ("k_all", "v_all"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_attention_without_a_cache_has_none() -> None:
    alone = model(_OUTPUTS % "" + "(q, k, v, , , ends, total)")
    assert sinks(alone) == []
