"""A cache in place for CUDA's 16-bit kernels: keys and values are of that type themselves, and it is verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.canonicalize import canonicalize
from tests.generation import compiled, folders, ours, plain, reference, rows_of
from tests.test_cache_pass import BOUNDS, check
from tests.test_cache_pass import compiled as passed
from tests.test_cache_pass import plain as toy

KINDS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
NAMES = {"fp16": "float16", "bf16": "bfloat16"}
LENGTHS = (9, 5, 1, 7)
SLOW = pytest.mark.slow


def types(path: Path) -> dict[str, ir.DataType | None]:
    """Of the floats that a model takes and gives."""
    graph = load_model(path).graph
    floats = (v for v in (*graph.inputs, *graph.outputs) if v.dtype is not None and v.dtype.is_floating_point())
    return {str(v.name): v.dtype for v in floats}


@pytest.mark.parametrize(("name", "precision"), [("gpt2", "fp16"), ("llama", "fp16"), ("gpt2", "bf16")])
def test_it_is_verified(name: str, precision: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "cuda", "precision": precision, "cache": True}
    report = onnxsmith.optimize(plain(name), tmp_path / "fast", **options)
    assert report.parity is not None and report.parity.fine and report.parity.evidence
    (near,) = report.parity.closeness
    assert near.output == "logits" and near.mean_cosine > {"fp16": 0.9999, "bf16": 0.999}[precision]
    assert 0 < near.relative_rms < {"fp16": 5e-3, "bf16": 5e-2}[precision]  # it was rounded indeed
    again = onnxsmith.verify(tmp_path / "fast", against=plain(name))
    assert again.fine and again.certified and again.closeness
    entry = json.loads((tmp_path / "fast" / "onnxsmith.json").read_text())["cache"]
    assert (entry["layout"], entry["dtype"]) == ("in-place", NAMES[precision])
    found = types(tmp_path / "fast" / "model.onnx")
    assert {found[n] for n in (*entry["past"], *entry["present"])} == {KINDS[precision]}
    assert found["logits"] == ir.DataType.FLOAT


def kernels(outcome: pipeline.Outcome) -> list[ir.Node]:
    return [n for n in outcome.model.graph if n.op_type == "GroupQueryAttention"]


@pytest.mark.parametrize(
    "kind", ["rotary", *(pytest.param(kind, marks=SLOW) for kind in ("learned", "relative", "window"))]
)
def test_kinds_of_positions(kind: str) -> None:
    """Nothing is cast between attention and its buffers, and no head has a sink: that is for the CPU's kernels."""
    outcome = passed(toy(kind), "cuda", precision="fp16")
    assert outcome.exact is not None
    check(toy(kind), pipeline.Outcome(outcome.exact), "cuda")
    assert len(kernels(outcome)) == 2
    for node in kernels(outcome):
        past, present = node.inputs[3:5], node.outputs[1:]
        assert all(v is not None and v.is_graph_input() and v.dtype == ir.DataType.FLOAT16 for v in past)
        assert all(v.is_graph_output() and v.dtype == ir.DataType.FLOAT16 for v in present)
        assert node.inputs[1] is None or kind in ("window", "rotary"), "queries, keys and values are one product"
        assert all(v is None for v in node.inputs[11:])
        floats = [v for v in node.inputs if v is not None and v.dtype is not None and v.dtype.is_floating_point()]
        assert {v.dtype for v in floats} == {ir.DataType.FLOAT16}


def test_in_float32_keys_and_values_are_copied() -> None:
    outcome = passed(toy("learned"), "cuda")
    found = check(toy("learned"), outcome, "cuda")
    assert (found.layout, found.dtype) == ("concat", "float32") and not kernels(outcome)
    told = [r.reason for r in outcome.remarks if r.rule == "in-place-cache"]
    assert told == ["keys and values are copied: cuda has no kernel of GroupQueryAttention for this type"]


@pytest.mark.parametrize("keep_io", [True, False])
def test_a_cache_that_is_copied_is_of_16_bits_too(keep_io: bool) -> None:
    steps = pipeline.passes(target("cuda", "bf16"), "bf16", BOUNDS, keep_io=keep_io, cache="last")
    steps = [step for step in steps if step.name not in ("in-place-cache", "packed-qkv")]
    model = pipeline.run(canonicalize(toy("learned").clone()), steps).model
    cache = recorded(model)
    assert cache is not None and (cache.layout, cache.dtype) == ("concat", "bfloat16")
    kinds = {str(v.name): v.dtype for v in (*model.graph.inputs, *model.graph.outputs)}
    assert {kinds[name] for name in (*cache.past, *cache.present)} == {ir.DataType.BFLOAT16}
    assert kinds["logits"] == (ir.DataType.FLOAT if keep_io else ir.DataType.BFLOAT16)


def test_a_cache_is_as_wide_as_the_attention_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one layer stays in float32, past and present of all do: they have one type."""
    steps = pipeline.passes(target("cuda", "fp16"), "fp16", BOUNDS, cache="last")
    steps = [step for step in steps if step.name not in ("in-place-cache", "packed-qkv")]
    monkeypatch.setattr(pipeline, "magnitudes", lambda model, bounds: {"present.1.key": 1e6})
    model = pipeline.run(canonicalize(toy("learned").clone()), steps).model
    cache = recorded(model)
    assert cache is not None and cache.dtype == "float32"
    kinds = {str(v.name): v.dtype for v in (*model.graph.inputs, *model.graph.outputs)}
    assert {kinds[name] for name in (*cache.past, *cache.present)} == {ir.DataType.FLOAT}


@pytest.mark.parametrize("name", ["gpt2", "t5", *(pytest.param(name, marks=SLOW) for name in ("mistral", "bart"))])
def test_in_float16_the_tokens_are_the_librarys(name: str) -> None:
    rows = rows_of(LENGTHS)
    found = compiled(name, "cuda", "fp16").generate(rows, max_new_tokens=12).sequences
    assert list(found) == reference(name, rows, max_new_tokens=12, do_sample=False, num_beams=1)


@SLOW
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_encoder_gives_what_its_decoder_takes(name: str, tmp_path: Path) -> None:
    """A folder of two, exported with past."""
    options: dict[str, Any] = {"target": "cuda", "precision": "fp16", "cache": True}
    report = onnxsmith.optimize(folders(name)[1], tmp_path / "fast", **options)
    assert report.parity is not None and report.parity.fine and report.parity.closeness
    decoder, encoder = (types(tmp_path / "fast" / part / "model.onnx") for part in ("decoder", "encoder"))
    cross = ours(name).generation.interface.cross
    assert cross is not None
    assert {decoder[n] for n in cross.past} == {encoder[n] for n in cross.outputs} == {ir.DataType.FLOAT16}
    assert decoder["logits"] == ir.DataType.FLOAT
    rows = rows_of(LENGTHS)
    found = onnxsmith.load(tmp_path / "fast", provider="cpu", threads=1).generate(rows, max_new_tokens=12).sequences
    assert list(found) == reference(name, rows, max_new_tokens=12, do_sample=False, num_beams=1)
    assert onnxsmith.verify(tmp_path / "fast", against=folders(name)[1]).fine
