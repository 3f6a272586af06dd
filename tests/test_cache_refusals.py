"""A cache is refused before anything is changed, with one remark that says why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.cached import check_cached
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import runnable
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.canonicalize import canonicalize
from tests.command import Invoke
from tests.toy import parsed

GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g ({inputs}) => (float[B,S,9] logits)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{1}}, int64[2] middle = {{1, 2}}, int64[1] none = {{0}}>
{{
    n = Shape<start=1, end=2>(ids)
    length = Squeeze(n)
    steps = Range(zero, length, one)
    column = Unsqueeze(steps, first)
    causal = LessOrEqual(steps, column)
    keys = Unsqueeze(mask, middle)
    allowed = Cast<to=9>(keys)
    seen = And(allowed, causal)
    x = Gather(table, ids)
    {before}
    y = Attention<q_num_heads=2, kv_num_heads=2>(h, h, h, {mask})
    {after}
    logits = MatMul(z, head)
}}
"""
INPUTS = "int64[B,S] ids, int64[B,S] mask"
SOUND = {"inputs": INPUTS, "before": "h = Identity(x)", "mask": "seen", "after": "z = Add(x, y)"}
REFUSED = {
    "no attention": ({"after": "z = Identity(x)"}, "no attention was recognised"),
    "no mask": ({"mask": ""}, "attention is bidirectional"),
    "only padding is masked": (
        {"mask": "all", "before": "h = Identity(x)\n many = Shape(seen)\n all = Expand(allowed, many)"},
        "a token sees later ones",
    ),
    "each sees the later ones": (
        {"mask": "turned", "before": "h = Identity(x)\n turned = Transpose<perm=[0, 1, 3, 2]>(seen)"},
        "a token sees later ones",
    ),
    "a mean over the text": (
        {"after": "mean = ReduceMean<keepdims=1>(y, first)\n z = Add(x, mean)"},
        "(ReduceMean|Add) .* does not treat each token apart",
    ),
    "a convolution over the text": (
        {
            "before": "t = Transpose<perm=[0, 2, 1]>(x)\n c = Conv<pads=[1, 1]>(t, kernel)\n"
            " h = Transpose<perm=[0, 2, 1]>(c)"
        },
        "Conv .* does not treat each token apart",
    ),
    "a softmax over the text": ({"after": "z = Softmax<axis=1>(y)"}, "Softmax .* does not treat each token apart"),
    "reversed": (
        {"before": "h = Slice(x, minus, far, first, minus)"},
        "Slice .* does not treat each token apart",
    ),
    "two inputs of ids": (
        {"inputs": f"{INPUTS}, int64[B,S] kinds", "before": "k = Gather(table, kinds)\n h = Add(x, k)"},
        "expected one input of token ids .* found ids, kinds",
    ),
    "another text": (
        {"inputs": f"{INPUTS}, float[B,R,8] memory", "before": "h = Add(x, x)", "after": "z = Add(y, memory)"},
        "input memory is neither ids nor a mask",
    ),
    "a fixed length": ({"inputs": "int64[B,6] ids, int64[B,6] mask"}, "is fixed at 6; export it open"),
    "an open length": ({"inputs": "int64[B,?] ids, int64[B,?] mask"}, "has no name; name it with --dims"),
    "a mask that marks padding": (
        {"before": "h = Identity(x)\n rest = Not(allowed)\n other = And(rest, causal)", "mask": "other"},
        "hides tokens that are marked with 1",
    ),
    "a mask from the words": (
        {
            "before": "h = Identity(x)\n w = Cast<to=9>(ids)\n k = Unsqueeze(w, middle)\n m = And(k, causal)",
            "mask": "m",
        },
        "m has 2 dimensions as long as the text",
    ),
}


def toy(**parts: str) -> ir.Model:
    rng = np.random.default_rng(0)
    sizes = {"table": (9, 8), "head": (8, 9), "kernel": (8, 8, 3), "position_ids": (9, 8)}
    arrays = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    text = GRAPH.format(**SOUND | parts)
    numbers = {"minus": np.array([-1]), "far": np.array([np.iinfo(np.int64).min])}
    return parsed(text, {name: x for name, x in (arrays | numbers).items() if re.search(rf"\b{name}\b", text)})


def compiled(model: ir.Model) -> pipeline.Outcome:
    return pipeline.run(canonicalize(model), pipeline.passes(target("cpu", "fp32"), "fp32", cache="last"))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_remark(name: str) -> None:
    parts, reason = REFUSED[name]
    outcome = compiled(toy(**parts))
    (remark,) = [r for r in outcome.remarks if "cache" in r.rule]
    assert remark.kind == "missed" and re.search(reason, remark.reason), remark
    assert recorded(outcome.model) is None
    assert [v.name for v in outcome.model.graph.outputs] == ["logits"]
    values = [*outcome.model.graph.inputs, *outcome.model.graph.initializers.values()]
    assert all(user.graph is outcome.model.graph for v in values for user, _ in v.uses())
    assert not any(str(v.name).startswith("past") for v in outcome.model.graph.inputs)


TAKEN = "next_token = Gather(position_ids, ids)\n k = Softmax<axis=-1>(next_token)\n h = Mul(k, x)"


@pytest.mark.parametrize("before", [SOUND["before"], TAKEN])
def test_the_sound_one_is_not(before: str) -> None:
    """Inner values may have the names that a cache's inputs and outputs get."""
    outcome = compiled(toy(before=before))
    evidence = check_cached(toy(before=before), outcome.model, runnable(toy(before=before), {}), {})
    assert evidence and all(e.worst.fine for e in evidence)


def test_a_refusal_is_printed(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(ir.to_proto(toy(mask="")).SerializeToString())
    result = invoke("optimize", path, "-o", tmp_path / "out", "--cache", "--verify", "off")
    assert result.code == 0 and "kv-cache not done: attention is bidirectional" in result.out


def test_contradicting_flags(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(ir.to_proto(toy()).SerializeToString())
    for flags, told in ((["--cache", "--unpad"], "has no padding to remove"), (["--all-logits"], "add cache")):
        result = invoke("optimize", path, "-o", tmp_path / "out", *flags)
        assert result.code == BadUsage.exit_code and not (tmp_path / "out").exists()
        assert told in result.err


def test_the_manifest_says_how_it_is_run(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(ir.to_proto(toy()).SerializeToString())
    report = onnxsmith.optimize(path, tmp_path / "out", cache=True, tuned=False)
    assert report.parity is not None and report.parity.evidence and report.parity.fine
    manifest = json.loads((tmp_path / "out" / "onnxsmith.json").read_text())
    assert manifest["cache"]["past"] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert [entry["name"] for entry in manifest["outputs"]][:2] == ["logits", "next_token"]


def test_a_cache_that_was_made_here_is_no_original(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(ir.to_proto(toy()).SerializeToString())
    onnxsmith.optimize(path, tmp_path / "out", cache=True, verify="off")
    for flags in ([], ["--cache"], ["--precision", "int8-weights"]):
        result = invoke("optimize", tmp_path / "out", "-o", tmp_path / "again", *flags)
        assert result.code == BadInput.exit_code and "optimize the model that it was made of" in result.err
    assert not (tmp_path / "again").exists()
