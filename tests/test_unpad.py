"""Padding removed: the same at allowed positions, zero at padded ones, on every row and for every way to pool."""

from __future__ import annotations

import json
import re
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
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import check_whole, runnable
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.parity import counted
from tests.command import Invoke
from tests.parity import randomized
from tests.toy import parsed

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}
MODELS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZE)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**SIZE, pad_token_id=1)),
    "mpnet": lambda: transformers.MPNetModel(transformers.MPNetConfig(**SIZE)),
    "albert": lambda: transformers.AlbertModel(transformers.AlbertConfig(**SIZE, embedding_size=16)),
}
LENGTHS = {"right": (9, 4, 1), "left": (9, 4, 1), "full": (9, 9), "shared": (3, 9, 4, 2, 5, 1)}
GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,S,8] x, int64[B,S] keep) => ({out})
<int64[2] middle = {{1, 2}}, int64[1] last = {{2}}, int64[1] places = {{1}}, int64 second = {{1}}>
{{
    wide = Unsqueeze(keep, middle)
    mask = Cast<to=9>(wide)
    many = Expand(mask, size)
    q = MatMul(x, w)
    y = Attention<q_num_heads=2, kv_num_heads=2>(q, q, q, {mask})
    {tail}
}}
"""


@pytest.fixture(
    scope="module",
    params=[*(name for name in MODELS if name != "albert"), pytest.param("albert", marks=pytest.mark.slow)],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("raw") / f"{request.param}.onnx"
    ids = torch.ones(2, 7, dtype=torch.int64) * 5
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        randomized(MODELS[request.param]()),
        (ids, mask),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden", "pooled"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
    )
    return path


@pytest.fixture(scope="module")
def unpadded(exported: Path) -> Path:
    output = exported.with_suffix("")
    report = onnxsmith.optimize(exported, output, unpad=True)
    assert report.parity is not None and report.parity.fine
    assert [r.kind for r in report.remarks if r.rule == "unpad"] == ["analysis"]
    return output


@pytest.mark.parametrize("side", LENGTHS)
def test_same_at_allowed_positions_and_zero_elsewhere(exported: Path, unpadded: Path, side: str) -> None:
    feeds = _batch(side)
    kept = feeds["attention_mask"] == 1
    own, ours = (_run(path, feeds) for path in (exported, unpadded / "model.onnx"))
    for name in ("hidden", "pooled"):
        np.testing.assert_allclose(counted(ours[name], kept), counted(own[name], kept), rtol=0, atol=2e-5)
    kept[:, 0] = True  # the first is always computed
    assert not ours["hidden"][~kept].any()


def test_the_contract_is_recorded(unpadded: Path) -> None:
    manifest = json.loads((unpadded / "onnxsmith.json").read_text())
    assert "unpad" in manifest["passes"] and manifest["padded_positions"].startswith("zero")


def test_products_run_on_packed_tokens(exported: Path) -> None:
    model = _optimized(load_model(exported)).model
    products = [n for n in model.graph if n.op_type == "MatMul" and len(n.outputs[0].shape or ()) == 3]
    assert len(products) >= 12
    assert sum("packed_tokens" in map(str, n.outputs[0].shape or ()) for n in products) >= len(products) - 1


@pytest.mark.parametrize("shift", [1e-2, 0.0])
def test_verification_judges_allowed_positions_alone(exported: Path, shift: float) -> None:
    original, compiled = load_model(exported), _optimized(load_model(exported)).model
    cases = runnable(original, {})
    weight = next(n for n in compiled.graph if n.op_type == "MatMul").inputs[1]
    weight.const_value = ir.tensor(weight.const_value.numpy() + np.float32(shift))
    found = check_whole(original, compiled, cases, {})
    assert all(e.worst.fine for e in found) == (shift == 0)


REFUSED = {
    "no mask": ("float[B,S,8] y", "", "", "found none"),
    "the attention itself an output": ("float[B,S,8] y", "many", "", "output y is the Attention's own"),
    "pooled over padding": (
        "float[B,8] z",
        "many",
        "z = ReduceMean<keepdims=0>(y, places)",
        "ReduceMean .* reads the padded positions of y",
    ),
    "pooled by the second token": (
        "float[B,8] z",
        "many",
        "z = Gather<axis=1>(y, second)",
        "Gather .* reads the padded positions of y",
    ),
}


HEADS_FIRST = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[B,4,4,8] q, float[B,4,8] x, bool[B,4] keep) => (float[B,4,4,8] y)
<int64[2] middle = {1, 2}, int64[4] size = {1, 1, 4, 1}>
{
    wide = Unsqueeze(keep, middle)
    mask = Expand(wide, size)
    y = Attention(q, q, q, mask)
}
"""


def test_as_many_heads_as_positions_are_no_positions() -> None:
    (remark,) = [r for r in _optimized(parsed(HEADS_FIRST, {})).remarks if r.rule == "unpad"]
    assert remark.kind == "missed" and "is no self-attention of [B, S, D]" in remark.reason


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_remark(name: str) -> None:
    out, mask, tail, reason = REFUSED[name]
    model = _toy(out, mask, tail)
    outcome = _optimized(model)
    (remark,) = [r for r in outcome.remarks if r.rule == "unpad"]
    assert remark.kind == "missed" and re.search(reason, remark.reason)
    assert not any(n.op_type == "NonZero" for n in outcome.model.graph)


def test_a_refusal_is_printed(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "toy.onnx"
    out, mask, tail, _ = next(iter(REFUSED.values()))
    path.write_bytes(ir.to_proto(_toy(out, mask, tail)).SerializeToString())
    result = invoke("optimize", path, "-o", tmp_path / "out", "--unpad", "--verify", "off")
    assert result.code == 0 and "unpad not done: " in result.out


@pytest.mark.parametrize(("polarity", "kinds"), [("Cast<to=1>", ["analysis"]), ("Not", ["missed"])])
def test_pooling_under_the_mask(polarity: str, kinds: list[str]) -> None:
    """A product with the mask is zero at padding anyway; with its opposite it is not, so nothing may be left out."""
    source = (
        "kept = Cast<to=9>(keep)\n    rest = Not(kept)\n    " if polarity == "Not" else "rest = Identity(keep)\n    "
    )
    tail = source + "flags = Cast<to=1>(rest)\n    column = Unsqueeze(flags, last)\n    "
    tail += "masked = Mul(y, column)\n    z = ReduceSum<keepdims=0>(masked, places)"
    outcome = _optimized(_toy("float[B,8] z", "many", tail))
    assert [r.kind for r in outcome.remarks if r.rule == "unpad"] == kinds


def test_counting_leaves_padded_models_alone() -> None:
    case = Case("one", {"keep": np.array([[1, 0]])}, np.array([True]))
    assert counting(_toy("float[B,S,8] y", "many", ""), [case]) == [case]


def _toy(out: str, mask: str, tail: str) -> Any:
    text = GRAPH.format(out=out, mask=mask, tail=tail)
    size = "    b = Shape<start=0, end=1>(x)\n    n = Shape<start=1, end=2>(x)\n"
    size += "    size = Concat<axis=0>(b, places, n, n)\n"
    text = text.replace("    many =", size + "    many =")
    return parsed(text, {"w": np.eye(8, dtype=np.float32)})


def _optimized(model: Any) -> pipeline.Outcome:
    steps = pipeline.passes(target("cpu", "fp32"), "fp32", without_padding=True)
    return pipeline.run(canonicalize(model), steps)


def _batch(side: str) -> dict[str, np.ndarray]:
    rng, lengths = np.random.default_rng(0), LENGTHS[side]
    mask = np.array([[i < n for i in range(max(lengths))] for n in lengths], dtype=np.int64)
    mask = mask[:, ::-1].copy() if side == "left" else mask
    return {"input_ids": rng.integers(2, 50, mask.shape) * mask + (1 - mask), "attention_mask": mask}


def _run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
