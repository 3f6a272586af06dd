"""Encoder-decoders exported with past get the cache that a plain export gets, and give the library's tokens."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.artifact import write_artifact
from onnxsmith.compiler.exporters import to_onnx
from onnxsmith.compiler.split import optimize_split
from onnxsmith.errors import BadInput, BadUsage, CheckFailed
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.parts import seq2seq_tasks
from onnxsmith.models.transformer import Transformer, TransformerConfig
from onnxsmith.runtime.model import LoadedModel
from tests.generation import EOS, PAD, folders, rows_of, theirs, varied
from tests.parity import randomized
from tests.past import export_decoder_with_past
from tests.test_cache_past import optimized
from tests.test_cache_seq2seq import greedy
from tests.test_generation_reference import BEAMS, LENGTHS, check
from tests.toy import parsed


def fast(source: Path, folder: Path, *, verified: bool = True, layers: int = 2) -> LoadedModel:
    """Both parts compiled, and the decoder found to be the original in steps."""
    report = onnxsmith.optimize(source, folder, cache=True, verify="final" if verified else "off")
    if verified:
        assert report.parity is not None and report.parity.fine
        assert {e.output for e in report.parity.evidence} >= {"logits", "present.0.encoder.key of encoder"}
    cache = json.loads((folder / "decoder" / "onnxsmith.json").read_text())["cache"]
    assert cache["layout"] == "in-place" and cache["next_token"] == "next_token" and cache["last_only"]
    cross = [f"past_key_values.{i}.encoder.{part}" for i in range(layers) for part in ("key", "value")]
    assert cache["cross"]["past"] == cross and cache["cross"]["mask"] == "encoder_attention_mask"
    given = {v.name for v in ir.load(folder / "decoder" / "model.onnx").graph.inputs}
    assert given.issuperset(cross) and "past_key_values.0.key" in given and "encoder_hidden_states" not in given
    return onnxsmith.load(folder, threads=1)


# To evaluate T5 in float64, step by step, takes half a minute.
OURS = [
    pytest.param("t5", False, id="t5"),
    pytest.param("t5", True, id="t5-verified", marks=pytest.mark.slow),
    pytest.param("bart", True, id="bart"),
]


@pytest.mark.parametrize(("name", "verified"), OURS)
def test_our_own_pair(name: str, verified: bool, tmp_path: Path) -> None:
    """Learned and relative positions go on where the past ends."""
    _, source = folders(name)
    model = fast(source, tmp_path / "fast", verified=verified)
    check(name, model)
    check(name, model, **BEAMS)


def own_transformer(folder: Path, weights: Callable[[Any], Any]) -> tuple[Transformer, Path]:
    """A module, and its two parts as artifacts."""
    config = TransformerConfig(64, 32, 1, 4, 40, positions="sinusoidal", length=40)
    module = weights(Transformer(config))
    whole, *parts = seq2seq_tasks(64, 32, config.cache, 40)
    checkpoint = Checkpoint(module, whole, {}, parts=tuple(parts))
    for part, name in (("encoder", "encoder-with-present"), ("decoder", "decoder-with-past")):
        found = checkpoint.for_task(name)
        generation = {"eos_token_id": EOS, "decoder_start_token_id": PAD}
        manifest = {"format": 1, "task": name, "bounds": dict(found.task.bounds), "generation": generation}
        write_artifact(folder / part, to_onnx(found, "torchscript"), manifest)
    return module, folder


def test_our_own_transformer(tmp_path: Path) -> None:
    module, source = own_transformer(tmp_path / "two", varied)
    model = fast(source, tmp_path / "fast", layers=1, verified=False)
    assert model.generation.interface.max_positions == 40
    rows = rows_of(LENGTHS)
    found = list(model.generate(rows, max_new_tokens=20).sequences)
    assert found == [greedy(module, row, 20) for row in rows]
    assert len(set(found)) > 1


@pytest.mark.slow
def test_both_are_verified_anew(tmp_path: Path) -> None:
    _, source = own_transformer(tmp_path / "two", randomized)
    fast(source, tmp_path / "fast", layers=1)
    found = onnxsmith.verify(tmp_path / "fast", against=source)
    assert found.fine and found.certified
    assert {e.output for e in found.whole} == {"logits", "present.0.encoder.key", "present.0.encoder.value"}
    assert onnxsmith.verify(tmp_path / "fast" / "decoder", against=source / "decoder").fine
    with pytest.raises(BadUsage, match="inputs are for one model"):
        onnxsmith.verify(tmp_path / "fast", against=source, inputs={"input_ids": np.ones((1, 3), np.int64)})
    encoder = tmp_path / "fast" / "encoder" / "model.onnx"
    model = ir.load(encoder)
    model.producer_name = "somebody else"
    ir.save(model, encoder)
    assert onnxsmith.verify(tmp_path / "fast", against=source).files == (str(encoder),)


FORMS = [
    pytest.param("t5", False, False, id="t5-torchscript"),
    pytest.param("t5", False, True, id="t5-verified", marks=pytest.mark.slow),
    pytest.param("bart", False, True, id="bart-torchscript"),
    pytest.param("t5", True, True, id="t5-dynamo", marks=pytest.mark.slow),
    pytest.param("bart", True, True, id="bart-dynamo", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "dynamo", "verified"), FORMS)
def test_the_librarys_decoder(name: str, dynamo: bool, verified: bool, tmp_path: Path) -> None:
    """It has no mask of its own, and states of the encoder that it never reads."""
    source = tmp_path / "two"
    shutil.copytree(folders(name)[1], source)
    export_decoder_with_past(theirs(name), source / "decoder" / "model.onnx", dynamo=dynamo)
    model = fast(source, tmp_path / "fast", verified=verified)
    check(name, model)
    check(name, model, **BEAMS)


def test_without_a_cache_it_keeps_its_past(tmp_path: Path) -> None:
    _, source = folders("bart")
    onnxsmith.optimize(source, tmp_path / "fast", verify="off")
    names = [[v.name for v in ir.load(f / "decoder" / "model.onnx").graph.inputs] for f in (source, tmp_path / "fast")]
    assert names[0] == names[1]
    check("bart", onnxsmith.load(tmp_path / "fast", threads=1))


def test_wrong_usage(tmp_path: Path) -> None:
    _, source = folders("bart")
    with pytest.raises(BadUsage, match="two models; give a folder"):
        onnxsmith.optimize(source, tmp_path / "fast.onnx", cache=True)
    with pytest.raises(BadUsage, match="budget is for one model"):
        onnxsmith.optimize(source, tmp_path / "fast", cache=True, precision="int8", budget="cosine=0.9")
    with pytest.raises(BadUsage, match="an encoder-decoder, whose source is read apart already; leave out split"):
        optimize_split(source / "decoder", tmp_path / "fast", precision="fp32", verify="off")
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    with pytest.raises(BadInput, match="holds the model to optimize"):
        onnxsmith.optimize(copy, copy, cache=True)
    shutil.rmtree(copy / "encoder")
    onnxsmith.export("bart", copy / "encoder", checkpoint=folders("bart")[0], task="encoder", exporter="torchscript")
    with pytest.raises(BadInput, match=r"gives no present.0.encoder.key, as decoder beside it expects; export both"):
        onnxsmith.optimize(copy, tmp_path / "fast", cache=True)
    assert not list(tmp_path.glob("fast*"))


GRAPH = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] input_ids, int64[B,{mask}] source_mask, int64[B,{other}] other_mask,
   float[B,2,P,8] k, float[B,2,P,8] v, float[B,2,R,8] read_k, float[B,2,R,8] read_v)
    => (float[B,S,9] logits, float[B,2,Q,8] k_out, float[B,2,U,8] v_out, float[B,2,R,8] read_k_out)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{1}}, int64[1] none = {{0}}, int64[1] third = {{2}},
 int64[2] middle = {{1, 2}}, int64[4] heads = {{0, 0, 2, 8}}, int64[3] joined = {{0, 0, 16}}>
{{
    before = Shape<start=2, end=3>(k)
    new = Shape<start=1, end=2>(input_ids)
    all = Add(before, new)
    p = Squeeze(before)
    total = Squeeze(all)
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
    flags = Cast<to=9>(source_mask)
    others = Cast<to=9>(other_mask)
    both = {both}
    narrow = Unsqueeze(both, middle)
    queries = Concat<axis=0>(first, first, new, first)
    seen = Expand(narrow, queries)
    z = Attention(y, read_k, read_v, seen)
    w = Add(y, z)
    back = Transpose<perm=[0, 2, 1, 3]>(w)
    h = Reshape(back, joined)
    logits = MatMul(h, head)
    read_k_out = Identity(read_k)
}}
"""
KEPT = "k_out = Concat<axis=2>(k, own)"
SOUND = {"mask": "R", "other": "W", "both": "Identity(flags)", "keys": KEPT, "read": "own, k_out, v_out, causal"}
REFUSED = {
    "two masks of a source": ({"other": "R", "both": "And(flags, others)"}, "expected one mask of the source.*--dims"),
    "one token at a time": ({"step": "1"}, "fixed at 1; export it open"),
    "cut": ({"keys": "longer = Concat<axis=2>(k, own)\nk_out = Slice(longer, first, all, third)"}, "in another way"),
    "bidirectional": ({"read": "own, k_out, v_out"}, "bidirectional"),
}


def written(path: Path, **changes: str) -> Path:
    step = changes.pop("step", "S")
    text = GRAPH.replace("[B,S", f"[B,{step}").format(**SOUND | changes)
    if "others" not in changes.get("both", ""):  # nothing reads the other mask, so it is none
        text = re.sub(r" int64\[B,W\] other_mask,|    others = .*\n", "", text)
    random, sizes = np.random.default_rng(0), {"table": (11, 16), "head": (16, 9)}
    ir.save(parsed(text, {n: random.standard_normal(size) for n, size in sizes.items()}), path)
    return path


def test_a_decoder_alone(tmp_path: Path) -> None:
    """It stays one, reads what it read of a source, and what hands that on goes."""
    source = written(tmp_path / "plain.onnx")
    cache = optimized(source, tmp_path / "fast")
    assert cache["cross"] == {
        "past": ["read_k", "read_v"],
        "outputs": ["read_k", "read_v"],
        "inputs": ["input_ids", "attention_mask"],
        "mask": "source_mask",
        "model": None,
        "shared": False,
    }
    assert [v.name for v in ir.load(tmp_path / "fast" / "model.onnx").graph.outputs][:2] == ["logits", "next_token"]
    assert onnxsmith.verify(tmp_path / "fast", against=source).fine


def test_what_forgets_its_past_is_another_model(tmp_path: Path) -> None:
    forgetful = written(tmp_path / "forgetful.onnx", read="own, own, own, recent")
    with pytest.raises(CheckFailed, match="differs from the original"):
        onnxsmith.optimize(forgetful, tmp_path / "other", cache=True, strict=True)
    optimized(written(tmp_path / "sound.onnx"), tmp_path / "fast")
    assert not onnxsmith.verify(tmp_path / "fast", against=forgetful).fine


@pytest.mark.parametrize("case", REFUSED)
def test_refused_it_keeps_its_own(case: str, tmp_path: Path) -> None:
    changes: dict[str, Any]
    changes, reason = REFUSED[case]
    source = written(tmp_path / "plain.onnx", **changes)
    report = onnxsmith.optimize(source, tmp_path / "fast", cache=True, verify="off")
    (remark,) = [r for r in report.remarks if r.rule == "kv-cache"]
    assert remark.kind == "missed"
    assert re.search(reason, remark.reason), remark.reason
    names = [[v.name for v in ir.load(p).graph.inputs] for p in (source, tmp_path / "fast" / "model.onnx")]
    assert names[0] == names[1]
