"""Lowering for CUDA: what tiny models become, that every node has a kernel there, and that broken rules are noticed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.pipeline import Outcome
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import EachPass, check_whole, runnable
from onnxsmith.errors import BadUsage
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.provenance import rule_of
from onnxsmith.passes.lower.kernels import MICROSOFT
from tests import golden
from tests.command import Invoke
from tests.planted import ENCODER, Fault, attribute, break_rule, inputs, operator, through
from tests.toy import encoder

MODELS = ("bert-tiny", "gpt-tiny", "llama-tiny", "t5-tiny")
CONTRIB = {
    "bert-tiny": {"EmbedLayerNormalization": 1, "Attention": 2, "SkipLayerNormalization": 4, "BiasGelu": 2},
    "gpt-tiny": {"Attention": 2, "SkipLayerNormalization": 5, "FastGelu": 2},
    "llama-tiny": {"SkipSimplifiedLayerNormalization": 4, "QuickGelu": 2},
    "t5-tiny": {"Attention": 2, "MultiHeadAttention": 1, "SkipSimplifiedLayerNormalization": 5},
}
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: onnxsmith.export(name, folder / name) for name in MODELS}


def lowered(path: Path, precision: str) -> Outcome:
    model = canonicalize(load_model(path))
    return pipeline.run(model, pipeline.passes(target("cuda", precision), precision))


def contrib(model: ir.Model) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.all_nodes() if n.domain == MICROSOFT)


@pytest.mark.parametrize("name", MODELS)
def test_structure(exported: dict[str, Path], name: str) -> None:
    assert contrib(lowered(exported[name], "fp32").model) >= Counter(CONTRIB[name])


def test_what_has_no_bfloat16_kernel_is_not_emitted(exported: dict[str, Path]) -> None:
    found = contrib(lowered(exported["bert-tiny"], "bf16").model)
    assert found["EmbedLayerNormalization"] == 0 and found["SkipLayerNormalization"] == 5


def test_a_kernel_in_the_type_to_come_is_enough() -> None:
    """GroupQueryAttention has no float32 kernel on CUDA, but one on the CPU: it is checked there, and then narrowed."""
    model = graph_of("groups-in-float32")
    outcome = pipeline.run(canonicalize(model.clone()), pipeline.passes(target("cuda", "fp16"), "fp16"))
    (node,) = [n for n in outcome.model.graph if n.op_type == "GroupQueryAttention"]
    assert node.outputs[0].dtype == ir.DataType.FLOAT16
    assert outcome.exact is not None and contrib(outcome.exact)["GroupQueryAttention"] == 1
    assert all(e.worst.fine for e in check_whole(model, outcome.exact, runnable(model, {}), {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_emitted_node_has_a_kernel(exported: dict[str, Path], name: str, precision: str) -> None:
    kernels = target("cuda", precision).kernels
    assert kernels is not None
    emitted = 0
    for node in lowered(exported[name], precision).model.graph.all_nodes():
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype in FLOATS]
        narrow = any(v.dtype != ir.DataType.FLOAT for v in values)
        if not values or not (narrow or node.domain == MICROSOFT or rule_of(node)):
            continue
        emitted += 1
        for v in values:
            assert kernels.has(node.domain, node.op_type, v.dtype), f"{node.domain}.{node.op_type} of {v.dtype}"
    assert emitted > 10


@pytest.mark.parametrize("name", MODELS)
def test_every_rewrite_holds_on_cpu_kernels(exported: dict[str, Path], name: str) -> None:
    """The contrib kernels of the CPU against the lifted graph, in float32, by the parity rule."""
    report = onnxsmith.optimize(exported[name], None, target="cuda", verify="each", strict=True)
    assert report.parity is not None and report.parity.fine
    assert "not on CUDA" in report.parity.note
    assert {site.status for site in report.sites} <= {"fused", "already fused"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_sixteen_bits_stay_close(exported: dict[str, Path], tmp_path: Path, name: str, precision: str) -> None:
    report = onnxsmith.optimize(exported[name], tmp_path / "out", target="cuda", precision=precision)
    assert report.parity is not None and report.parity.fine  # up to the conversion
    assert report.parity.closeness
    assert all(c.mean_cosine > 0.999 for c in report.parity.closeness)
    assert report.bytes_after < 0.6 * report.bytes_before
    island = f"{precision}-island"
    assert all(r.reason for r in report.remarks if r.rule == island)
    saved = load_model(tmp_path / "out")
    assert all(v.dtype not in FLOATS[1:] for v in (*saved.graph.inputs, *saved.graph.outputs))


def test_the_command_tells_why_nodes_stay_in_float32(exported: dict[str, Path], tmp_path: Path, invoke: Invoke) -> None:
    args = ("optimize", exported["bert-tiny"], "-o", tmp_path / "out", "--target", "cuda", "--precision", "bf16")
    result = invoke(*args, "--verify", "off")
    assert result.code == 0
    assert "left in float32" in result.out and "Clip has no bf16 kernel that is known for cuda" in result.out


def test_sixteen_bits_at_the_interface(exported: dict[str, Path], tmp_path: Path) -> None:
    report = onnxsmith.optimize(
        exported["gpt-tiny"], tmp_path / "out", target="cuda", precision="fp16", half_io=True, verify="off"
    )
    assert report.parity is None
    assert [v.dtype for v in load_model(tmp_path / "out").graph.outputs] == [ir.DataType.FLOAT16]


def test_precisions_that_a_target_lacks() -> None:
    for name, precision in (("cpu", "fp16"), ("cpu", "bf16"), ("onnx", "fp16"), ("cuda", "int3")):
        with pytest.raises(BadUsage, match=f"target {name} has no precision '{precision}'; choose one of"):
            target(name, precision)


def test_the_table_says_where_each_entry_comes_from() -> None:
    kernels = target("cuda", "fp16").kernels
    assert kernels is not None
    assert all(kernel.source and kernel.cost is None for kernel in kernels.table.values())


EMBED = "embed-layer-norm"
EMBED = "embed-layer-norm"
FAULTS = [
    Fault("skip-layer-norm", "another epsilon", attribute("SkipLayerNormalization", "epsilon", 0.1)),
    Fault("skip-layer-norm", "bias dropped", inputs("SkipLayerNormalization", 0, 1, 2, 3)),
    Fault("skip-layer-norm", "skip twice", inputs("SkipLayerNormalization", 1, 1, 2, 3, 4)),
    Fault("bias-gelu", "tanh form", operator("BiasGelu", "FastGelu")),
    Fault("packed-attention", "another scale", attribute("Attention", "scale", 0.1)),
    Fault("packed-attention", "causal", attribute("Attention", "unidirectional", 1)),
    Fault("packed-attention", "mask dropped", inputs("Attention", 0, 1, 2)),
    Fault("packed-attention", "bias negated", through("Attention", 2, "Neg")),
    Fault("multi-head-attention", "values for keys", inputs("MultiHeadAttention", 0, 2, 1, 3, 4, 5), "cross-attention"),
    Fault("skip-rms-norm", "bias dropped", inputs("SkipSimplifiedLayerNormalization", 0, 1, 2), "skip-rms-norm"),
    Fault("fast-gelu", "erf form", operator("FastGelu", "BiasGelu"), "fast-gelu"),
    Fault(EMBED, "places for words", inputs("EmbedLayerNormalization", 0, 1, 3, 2, 4, 5, 6, 7, 8), EMBED),
]
STEPS = pipeline.passes(target("cuda", "fp32"), "fp32")


def graph_of(name: str) -> ir.Model:
    return encoder() if name == ENCODER else golden.read(golden.CASES / f"lower-cuda/{name}.txt").model()


@pytest.mark.parametrize("graph", sorted({fault.graph for fault in FAULTS}))
def test_sound_rules_pass(graph: str) -> None:
    outcome = pipeline.run(canonicalize(graph_of(graph)), STEPS, EachPass(runnable(graph_of(graph), {})))
    assert not outcome.undone
    assert {site.rule for site in outcome.applied} >= {fault.rule for fault in FAULTS if fault.graph == graph}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_broken_rule_is_named_and_rolled_back(fault: Fault) -> None:
    cases = runnable(graph_of(fault.graph), {})
    broken = [replace(step, rules=tuple(break_rule(rule, fault) for rule in step.rules)) for step in STEPS]
    outcome = pipeline.run(canonicalize(graph_of(fault.graph)), broken, EachPass(cases))
    assert {site.rule for site in outcome.undone} == {fault.rule}
    assert all(e.worst.fine for e in check_whole(graph_of(fault.graph), outcome.model, cases, {}))
