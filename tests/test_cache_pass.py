"""A cache by compilation: run in steps, every decoder gives what it gave for the whole text; others are refused."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.cached import check_cached
from onnxsmith.compiler.exporters import to_onnx
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import runnable
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.gpt import Gpt, GptConfig
from onnxsmith.models.heads import LanguageModel
from onnxsmith.models.llama import Llama, LlamaConfig
from onnxsmith.models.parts import language_tasks
from onnxsmith.passes.cache import Cache, kv_cache, recorded
from onnxsmith.passes.cache.last import at_every_token
from onnxsmith.passes.canonicalize import canonicalize
from tests.parity import randomized

BOUNDS = {"sequence": 40}
KINDS = ("learned", "sinusoidal", "rotary", "alibi", "relative")
BIAS = 10  # its place among the kernel's inputs
GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 40}


@functools.cache
def plain(kind: str, exporter: str = "dynamo") -> ir.Model:
    """The plain export of a decoder of 2 layers, with 4 heads of 16: one position kind of Gpt, or a Llama."""
    decoder: Gpt | Llama
    if kind in KINDS:
        decoder = Gpt(GptConfig(64, 64, 2, 4, 40, positions=kind))
    else:
        decoder = Llama(LlamaConfig(64, 64, 48, 2, 4, window=3 if kind == "window" else None, **GROUPED))
    tasks = language_tasks(64, 40, decoder.config.cache)
    module = randomized(LanguageModel(decoder))
    return to_onnx(Checkpoint(module, tasks[0], {}), exporter)


def compiled(
    model: ir.Model, where: str = "cpu", logits: pipeline.Logits = "last", precision: str = "fp32"
) -> pipeline.Outcome:
    steps = pipeline.passes(target(where, precision), precision, BOUNDS, cache=logits)
    return pipeline.run(canonicalize(model.clone()), steps)


def check(original: ir.Model, outcome: pipeline.Outcome, where: str = "cpu") -> Cache:
    """Run in steps it is the original; returns what is recorded."""
    found = recorded(outcome.model)
    assert found is not None, outcome.remarks
    evidence = check_cached(
        original.clone(), outcome.model, runnable(original.clone(), BOUNDS), target(where, "fp32").session
    )
    assert all(e.worst.fine for e in evidence), evidence
    return found


@pytest.mark.parametrize("kind", [*KINDS, "llama", "window"])
def test_every_kind_of_positions_on_cpu(kind: str) -> None:
    outcome = compiled(plain(kind))
    found = check(plain(kind), outcome)
    assert found.layout == "in-place"
    kernels = [n for n in outcome.model.graph if n.op_type == "GroupQueryAttention"]
    biased = [n for n in kernels if n.inputs[BIAS] is not None]
    assert len(biased) == (2 if kind in ("alibi", "relative") else 0)
    assert found.positions == ("position_ids" if kind in ("learned", "sinusoidal", "window") else None)
    assert found.heads == (2 if kind in ("llama", "window") else 4) and found.head_size == 16
    assert found.window == (3 if kind == "window" else None)
    assert found.max_positions == 40


@pytest.mark.parametrize("kind", ["learned", "window"])
def test_standard_operators_alone(kind: str) -> None:
    outcome = compiled(plain(kind), "onnx")
    assert check(plain(kind), outcome, "onnx").layout == "concat"
    assert {n.domain for n in outcome.model.graph} == {""}


@pytest.mark.parametrize("kind", ["learned", "llama"])
def test_torchscript_exports(kind: str) -> None:
    model = plain(kind, "torchscript")
    assert check(model, compiled(model)).layout == "in-place"


@pytest.mark.parametrize("kind", ["alibi", "llama"])
def test_attention_with_a_cache_is_told_as_fused(kind: str) -> None:
    anchors = sites.find(canonicalize(plain(kind).clone()))
    outcome = compiled(plain(kind))
    found = [s for s in sites.settle(anchors, outcome.model, outcome.remarks) if s.kind == "attention"]
    assert found and {s.status for s in found} == {"fused"}


def test_rotation_moves_into_the_kernel() -> None:
    graph = compiled(plain("window")).model.graph
    kernels = [n for n in graph if n.op_type == "GroupQueryAttention"]
    assert [n.attributes["do_rotary"].value for n in kernels] == [1, 1]
    assert not {"Cos", "Sin", "Split", "Concat", "Expand"} & {n.op_type for n in graph}
    assert kernels[0].inputs[7] is kernels[1].inputs[7], "one table for all layers"
    assert all(v.uses() for v in graph.initializers.values())


def test_logits_of_all_tokens() -> None:
    outcome = compiled(plain("llama"), logits="all")
    assert not check(plain("llama"), outcome).last_only
    assert [str(d) for d in outcome.model.graph.outputs[0].shape or ()] == ["batch", "sequence", "64"]


def test_the_head_runs_on_the_last_token() -> None:
    logits = compiled(plain("learned")).model.graph.outputs[0]
    head = logits.producer()
    assert head is not None and head.inputs[0] is not None
    assert [str(d) for d in head.inputs[0].shape or ()] == ["batch", "1", "64"]


def test_the_head_on_every_token_again() -> None:
    narrow, whole = compiled(plain("llama")).model.clone(), compiled(plain("llama"), logits="all").model
    logits = next(v for v in at_every_token(narrow).graph.outputs if v.name == "logits")
    assert [str(d) for d in logits.shape or ()] == ["batch", "sequence", "64"]
    past = np.zeros((2, 2, 0, 16), np.float32)
    feeds = {v.name: past for v in whole.graph.inputs} | {
        "input_ids": np.arange(10).reshape(2, 5),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    expected = run_model(whole)(feeds)["logits"]
    np.testing.assert_allclose(run_model(narrow)(feeds)["logits"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_products(precision: str) -> None:
    outcome = compiled(plain("llama"), precision=precision)
    assert outcome.exact is not None
    exact = pipeline.Outcome(outcome.exact)
    assert check(plain("llama"), exact).layout == "in-place"
    quantized = {"int8": "MatMulIntegerToFloat", "int4": "MatMulNBits"}[precision]
    types = [n.op_type for n in outcome.model.graph]
    assert quantized in types and "GroupQueryAttention" in types and recorded(outcome.model) == recorded(exact.model)


def _window_of(model: ir.Model, size: int) -> None:
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", size)


def _unturned(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 0)


def _first_token(model: ir.Model) -> None:
    next(n for n in model.graph if n.op_type == "ReduceMax").op_type = "ReduceMin"


@pytest.mark.parametrize("fault", [functools.partial(_window_of, size=2), _unturned, _first_token])
def test_verification_notices(fault: functools.partial[None]) -> None:
    outcome = compiled(plain("window"))
    fault(outcome.model)
    evidence = check_cached(plain("window").clone(), outcome.model, runnable(plain("window").clone(), BOUNDS), {})
    assert not all(e.worst.fine for e in evidence)


def test_a_model_that_has_a_cache_is_left_alone() -> None:
    model = compiled(plain("learned"), "onnx").model
    assert [r.kind for r in kv_cache(model)] == ["missed"]
