"""What a step of a decoder reads, and its share of what memory gives. No test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.reads import step_bytes
from onnxsmith.runtime import bandwidth
from onnxsmith.runtime.generation import buffers, result
from onnxsmith.runtime.generation.result import Timing
from tests.generation import rows_of, write_in_place


def test_a_table_is_not_read_and_a_shared_weight_once() -> None:
    table, weight, tied = (
        ir.Value(name=name, const_value=ir.tensor(np.zeros(shape, np.float32)))
        for name, shape in (("table", (100, 4)), ("weight", (4, 4)), ("tied", (50, 4)))
    )
    ids, x = ir.Value(name="ids"), ir.Value(name="x")
    nodes = [
        ir.node("Gather", [table, ids]),
        ir.node("Gather", [tied, ids]),
        ir.node("MatMul", [x, weight]),
        ir.node("MatMul", [x, weight]),
        ir.node("Gemm", [x, tied], {"transB": 1}),
    ]
    graph = ir.Graph([ids, x], [nodes[-1].outputs[0]], nodes=nodes, initializers=[table, weight, tied])
    assert step_bytes(ir.Model(graph, ir_version=10)) == 4 * (4 * 4 + 50 * 4)


def test_every_step_reads_the_weights_and_what_the_cache_holds(tmp_path: Path) -> None:
    """Two rows of 9 and 5 tokens; keys and values of 2 heads of 8 float32 take 128 bytes a token."""
    folder = write_in_place(tmp_path / "in-place")
    manifest = json.loads((folder / "onnxsmith.json").read_text())
    (folder / "onnxsmith.json").write_text(json.dumps(manifest | {"step_bytes": 10_000}))
    found = onnxsmith.load(folder, threads=1).generate(rows_of((9, 5)), max_new_tokens=3, eos_token_id=[])
    assert found.timing.read == 2 * 10_000 + 128 * (10 + 6) + 128 * (11 + 7)


def test_unknown_weights_have_no_share(tmp_path: Path) -> None:
    model = onnxsmith.load(write_in_place(tmp_path / "in-place"), threads=1)
    timing = model.generate(rows_of((9,)), max_new_tokens=3, eos_token_id=[]).timing
    assert (timing.read, timing.roof_share) == (0, None)


def test_share_of_the_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "read_bandwidth", lambda: 100.0)
    assert Timing(first_token=1.0, total=3.0, read=150).roof_share == 0.75
    assert Timing(first_token=1.0, total=1.0, read=150).roof_share is None


def test_bandwidth_counts_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "elapsed", lambda run: (run(), 0.5)[1])
    monkeypatch.setattr(bandwidth, "_NUMBERS", 1000)
    bandwidth.read_bandwidth.cache_clear()
    assert bandwidth.read_bandwidth(3) == 3 * 1000 * 4 / 0.5


def test_the_cache_is_as_large_as_the_list_of_models_says(tmp_path: Path) -> None:
    """Of float32 models, in columns of whole steps."""
    pytest.importorskip("torch")
    from onnxsmith.models.sizes import size_of

    onnxsmith.export("gpt-tiny", tmp_path / "plain", task="causal-lm", exporter="torchscript")
    onnxsmith.optimize(tmp_path / "plain", tmp_path / "fast", cache=True, verify="off")
    manifest = json.loads((tmp_path / "fast" / "onnxsmith.json").read_text())
    model = onnxsmith.load(tmp_path / "fast", threads=1)
    timing = model.generate([[1, 2, 3], [4]], max_new_tokens=5, eos_token_id=[]).timing
    assert timing.bytes == 2 * buffers.grown(0, 8) * size_of("gpt-tiny").cache
    steps, tokens = 4, (4 + 2) + (5 + 3) + (6 + 4) + (7 + 5)
    assert timing.read == steps * manifest["step_bytes"] + tokens * size_of("gpt-tiny").cache
    assert 0 < manifest["step_bytes"] <= size_of("gpt-tiny").memory["fp32"]
