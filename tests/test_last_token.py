"""Logits of last tokens without a cache: those of the original, from a head that sees one token a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import transformers

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import check_whole, runnable
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.optimize.last_token import at_last_token
from tests.command import Invoke
from tests.parity import randomized
from tests.test_decoder_parity import GPT2
from tests.toy import parsed

MASKS = {
    "right": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]],
}
CAUSAL = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] ids) => (float[B,S,{width}] logits)
{{
    x = Gather(table, ids)
    y = Attention<is_causal={causal}, q_num_heads=2, kv_num_heads=2>(x, x, x)
    {head}
}}
"""
HEAD = "logits = MatMul(y, weight)"
REFUSED = {
    "tokens see later ones": (0, HEAD, 12, "expected a causal decoder, but the mask of"),
    "tokens meet in the head": (
        1,
        "logits = CumSum(y, axis)",
        8,
        "a head that takes each token by itself, found CumSum",
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "decoder.onnx"
    model = randomized(transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, use_cache=False)))
    given = {name: torch.ones(2, 7, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        model, (), path, kwargs=given, input_names=list(given), output_names=["logits"],
        dynamic_shapes=dict.fromkeys(given, axes), dynamo=True,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def optimized(exported: Path) -> Path:
    output = exported.with_suffix("")
    report = onnxsmith.optimize(exported, output, last_token=True)
    assert report.parity is not None and report.parity.fine
    return output


@pytest.mark.parametrize("side", MASKS)
def test_the_logits_are_those_of_the_last_token_that_counts(exported: Path, optimized: Path, side: str) -> None:
    mask = np.array(MASKS[side], np.int64)
    feeds = {"input_ids": np.random.default_rng(0).integers(0, 99, mask.shape), "attention_mask": mask}
    whole, last = (_run(path, feeds) for path in (exported, optimized / "model.onnx"))
    at = [int(np.flatnonzero(row)[-1]) for row in mask]
    assert last.shape == (3, 1, 99)
    np.testing.assert_allclose(last[:, 0], whole[range(3), at], rtol=0, atol=2e-5)


def test_the_head_runs_on_one_token(exported: Path, optimized: Path) -> None:
    model = load_model(optimized / "model.onnx")
    head = next(n for n in reversed(model.graph) if n.op_type == "MatMul")
    assert (dims(head.inputs[0]) or [])[1] == 1
    manifest = json.loads((optimized / "onnxsmith.json").read_text())
    assert manifest["outputs"][0]["dims"][1:] == [1, 99] and "last-token" in manifest["passes"]


def test_verification_sees_another_token(exported: Path) -> None:
    original, compiled = load_model(exported), _compiled(load_model(exported)).model
    cases = runnable(original, {})
    assert all(e.worst.fine for e in check_whole(original, compiled, cases, {}))
    chosen = next(n for n in compiled.graph if n.op_type == "ReduceMax")
    chosen.op_type = "ReduceMin"
    assert not all(e.worst.fine for e in check_whole(original, compiled, cases, {}))


def test_without_a_mask_it_is_the_last_column() -> None:
    model = _toy(1, HEAD, 12)
    outcome = _compiled(model)
    session = ort.InferenceSession(ir.to_proto(outcome.model).SerializeToString(), providers=["CPUExecutionProvider"])
    whole = ort.InferenceSession(ir.to_proto(_toy(1, HEAD, 12)).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"ids": np.array([[1, 2, 3], [4, 5, 0]])}
    expected = whole.run(None, feeds)[0]
    np.testing.assert_allclose(session.run(None, feeds)[0], expected[:, -1:], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(at_last_token(outcome.model, feeds, {"logits": expected})["logits"], expected[:, -1:])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_remark(name: str) -> None:
    causal, head, width, reason = REFUSED[name]
    outcome = _compiled(_toy(causal, head, width))
    (remark,) = [r for r in outcome.remarks if r.rule == "last-token"]
    assert remark.kind == "missed" and reason in remark.reason
    assert dims(outcome.model.graph.outputs[0]) == ["B", "S", width]


def test_an_encoder_is_an_error_and_nothing_is_written(tmp_path: Path, invoke: Invoke) -> None:
    path, output = tmp_path / "toy.onnx", tmp_path / "out"
    path.write_bytes(ir.to_proto(_toy(0, HEAD, 12)).SerializeToString())
    result = invoke("optimize", path, "-o", output, "--last-token")
    assert result.code == 3 and "expected a causal decoder" in result.err and not output.exists()


def test_it_does_not_generate(optimized: Path, invoke: Invoke) -> None:
    result = invoke("run", optimized, "--prompt", "Once")
    assert result.code == 3 and "a model without a cache cannot generate" in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize("other", ["--cache", "--unpad"])
def test_not_with(other: str, exported: Path, tmp_path: Path, invoke: Invoke) -> None:
    result = invoke("optimize", exported, "-o", tmp_path / "out", "--last-token", other)
    assert result.code == 2 and "choose one of the three" in result.err


def _toy(causal: int, head: str, width: int) -> Any:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((12, 8)).astype(np.float32) for name in ("table", "weight")}
    weights["weight"] = weights["weight"].T.copy()
    text = CAUSAL.format(causal=causal, head=head, width=width)
    used = {name: x for name, x in weights.items() if name in text} | ({"axis": np.array(1)} if "axis" in head else {})
    return parsed(text, used)


def _compiled(model: Any) -> pipeline.Outcome:
    return pipeline.run(canonicalize(model), pipeline.passes(target("cpu", "fp32"), "fp32", only_last=True))


def _run(path: Path, feeds: dict[str, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, feeds)[0]
    return found
