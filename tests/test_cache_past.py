"""Decoders that were exported with past get the cache that a plain export gets, and give the library's tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers

import onnxsmith
from onnxsmith.compiler.recheck import verify
from onnxsmith.errors import CheckFailed
from tests.generation import EOS, folders, padded, rows_of, theirs, until_end, varied
from tests.past import export_with_past
from tests.test_generation_reference import check
from tests.toy import parsed


def optimized(source: Path, folder: Path, *, verified: bool = True) -> dict[str, Any]:
    """Given a cache in place, and found to be the original in steps; what is recorded of it."""
    report = onnxsmith.optimize(source, folder, cache=True, verify="final" if verified else "off")
    assert not verified or (report.parity is not None and report.parity.fine and report.parity.evidence)
    cache: dict[str, Any] = json.loads((folder / "onnxsmith.json").read_text())["cache"]
    assert cache["layout"] == "in-place" and cache["next_token"] == "next_token" and cache["last_only"]
    return cache


def test_our_own_with_past(tmp_path: Path) -> None:
    _, source = folders("llama")
    cache = optimized(source, tmp_path / "fast")
    assert cache["max_positions"] == 40 and cache["past"][:2] == ["past_key_values.0.key", "past_key_values.0.value"]
    check("llama", onnxsmith.load(tmp_path / "fast", threads=1))
    onnxsmith.optimize(source, tmp_path / "as-it-was", verify="off")
    inputs = ir.load(tmp_path / "as-it-was" / "model.onnx").graph.inputs
    assert [v.name for v in inputs] == [v.name for v in ir.load(source / "model.onnx").graph.inputs]


def test_gptj(tmp_path: Path) -> None:
    """Its angles are picked element by element, of neighbours and of a part of each head."""
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8, "n_inner": 48}
    config = transformers.GPTJConfig(vocab_size=64, n_positions=48, eos_token_id=EOS, pad_token_id=0, **sizes)
    module = varied(transformers.GPTJForCausalLM(config)).eval()
    source = export_with_past(module, tmp_path / "plain.onnx", dynamo=False, positions=True)
    cache = optimized(source, tmp_path / "fast")
    assert cache["positions"] == "position_ids"
    model, rows = onnxsmith.load(tmp_path / "fast", threads=1), rows_of((9, 5, 1, 7))
    ids, mask = map(torch.from_numpy, padded(rows, "left"))
    for settings in ({}, {"num_beams": 4}):
        found = model.generate(rows, max_new_tokens=12, eos_token_id=EOS, **settings).sequences
        with torch.no_grad():
            expected = module.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, **settings)
        assert list(found) == [until_end(row) for row in expected[:, ids.shape[1] :].tolist()]


FORMS = [
    pytest.param("gpt2", {"dynamo": False, "positions": True}, False, id="gpt2-torchscript"),
    pytest.param("gpt2", {"dynamo": False, "positions": True}, True, id="gpt2-verified", marks=pytest.mark.slow),
    pytest.param("llama", {"dynamo": False, "positions": False}, True, id="llama-torchscript", marks=pytest.mark.slow),
    pytest.param("gpt2", {"dynamo": True, "positions": False}, True, id="gpt2-dynamo", marks=pytest.mark.slow),
    pytest.param("llama", {"dynamo": True, "positions": True}, True, id="llama-dynamo", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "form", "verified"), FORMS)
def test_the_librarys_with_past(name: str, form: dict[str, bool], verified: bool, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    source.mkdir()
    manifest = {"format": 1, "task": "causal-lm-with-past", "generation": {"eos_token_id": EOS}}
    (source / "onnxsmith.json").write_text(json.dumps(manifest))
    export_with_past(theirs(name), source / "model.onnx", **form)
    optimized(source, tmp_path / "fast", verified=verified)
    check(name, onnxsmith.load(tmp_path / "fast", threads=1))


GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] input_ids, int64[B,T] attention_mask, float[B,2,P,8] k, float[B,2,P,8] v)
    => (float[B,S,9] logits, float[B,2,Q,8] k_out, float[B,2,R,8] v_out)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{1}}, int64[1] third = {{2}}, int64[1] none = {{0}},
 int64[1] end = {{999}}, int64[4] heads = {{0, 0, 2, 8}}, int64[3] joined = {{0, 0, 16}}>
{{
    all = Shape<start=1, end=2>(attention_mask)
    before = Shape<start=2, end=3>(k)
    total = Squeeze(all)
    p = Squeeze(before)
    columns = Range(zero, total, one)
    later = Range(p, total, one)
    rows = Unsqueeze(later, first)
    causal = LessOrEqual(columns, rows)
    recent = Slice(causal, before, all, first)
    x = Gather(table, input_ids)
    split = Reshape(x, heads)
    own = Transpose<perm=[0, 2, 1, 3]>(split)
    {keys}
    v_out = Concat<axis=2>(v, own)
    y = Attention({read})
    back = Transpose<perm=[0, 2, 1, 3]>(y)
    h = Reshape(back, joined)
    logits = MatMul(h, head)
}}
"""
KEPT = "k_out = Concat<axis=2>(k, own)"
SOUND = {"keys": KEPT, "read": "own, k_out, v_out, causal"}
REFUSED = {
    "cut": ({"keys": "longer = Concat<axis=2>(k, own)\nk_out = Slice(longer, first, end, third)"}, "in another way"),
    "put before": ({"keys": "k_out = Concat<axis=2>(own, k)"}, "in another way"),
    "read twice": ({"read": "own, k_out, w, causal", "keys": KEPT + "\nw = Add(v_out, k)"}, "Add .* reads k"),
    "bidirectional": ({"read": "own, k_out, v_out"}, "bidirectional"),
}


def written(path: Path, **changes: str) -> Path:
    random, sizes = np.random.default_rng(0), {"table": (11, 16), "head": (16, 9)}
    model = parsed(GRAPH.format(**SOUND | changes), {n: random.standard_normal(size) for n, size in sizes.items()})
    ir.save(model, path)
    return path


def test_what_forgets_its_past_is_another_model(tmp_path: Path) -> None:
    """It gives the same for a text at once, and its own steps tell."""
    sound = written(tmp_path / "sound.onnx")
    optimized(sound, tmp_path / "fast")
    assert verify(tmp_path / "fast", against=sound).fine
    forgetful = written(tmp_path / "forgetful.onnx", read="own, own, own, recent")
    with pytest.raises(CheckFailed, match="differs from the original"):
        onnxsmith.optimize(forgetful, tmp_path / "other", cache=True, strict=True)
    assert not verify(tmp_path / "fast", against=forgetful).fine
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("case", REFUSED)
def test_refused_it_keeps_its_own(case: str, tmp_path: Path) -> None:
    changes, reason = REFUSED[case]
    source = written(tmp_path / "plain.onnx", **changes)
    report = onnxsmith.optimize(source, tmp_path / "fast", cache=True, verify="off")
    (remark,) = [r for r in report.remarks if r.rule == "kv-cache"]
    assert remark.kind == "missed"
    assert re.search(reason, remark.reason), remark.reason
    assert [v.name for v in ir.load(tmp_path / "fast" / "model.onnx").graph.inputs][2:] == ["k", "v"]
