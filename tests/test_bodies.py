"""Sites inside If, Loop and Scan: found, fused, verified, and a fault planted there is noticed and rolled back."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import EachPass, check_whole, runnable
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.provenance import rules_of
from tests.planted import Fault, attribute, broken, fires, through
from tests.toy import parsed

_BLOCK = """
    product = MatMul({h}, kt)
    scaled = Mul(product, s)
    probabilities = Softmax<axis = -1>(scaled)
    attended = MatMul(probabilities, v)
    mean = ReduceMean<keepdims = 1>(attended, last)
    centred = Sub(attended, mean)
    squared = Mul(centred, centred)
    variance = ReduceMean<keepdims = 1>(squared, last)
    guarded = Add(variance, eps)
    deviation = Sqrt(guarded)
    normal = Div(centred, deviation)
    gained = Mul(normal, gain)
    normed = Add(gained, bias)
    inner = MatMul(normed, up)
    argument = Div(inner, root_two)
    curve = Erf(argument)
    gate = Add(curve, one)
    opened = Mul(inner, gate)
    active = Mul(opened, s)
    z = MatMul(active, down)
"""
_CONSTANTS = """<float s = {0.5}, float one = {1.0}, float root_two = {1.4142135}, float eps = {0.01},
    int64[1] last = {-1}, int64 trips = {3}, bool yes = {1}>"""
_GIVEN = "float[B, 2, S, 8] q, float[B, 2, 8, T] kt, float[B, 2, T, 8] v"
_STATE = "float[B, 2, S, 8]"
GRAPHS = {
    "then": f"""({_GIVEN}, bool c) => ({_STATE} y) {_CONSTANTS} {{
        y = If (c) <then_branch = a () => ({_STATE} z) {{ {_BLOCK.format(h="q")} }},
                    else_branch = b () => ({_STATE} w) {{ w = Mul(q, s) }}> }}""",
    "else": f"""({_GIVEN}, bool c) => ({_STATE} y) {_CONSTANTS} {{
        y = If (c) <then_branch = a () => ({_STATE} w) {{ w = Mul(q, s) }},
                    else_branch = b () => ({_STATE} z) {{ {_BLOCK.format(h="q")} }}> }}""",
    "loop": f"""({_GIVEN}) => ({_STATE} y) {_CONSTANTS} {{
        y = Loop (trips, yes, q) <body = a (int64 i, bool before, {_STATE} h) => (bool after, {_STATE} z) {{
            after = Identity(before) {_BLOCK.format(h="h")} }}> }}""",
    "scan": f"""({_GIVEN}, float[3, 1] steps) => ({_STATE} y, float[3, 1] negated) {_CONSTANTS} {{
        y, negated = Scan <num_scan_inputs = 1,
            body = a ({_STATE} state, float[1] step) => ({_STATE} z, float[1] less) {{
                less = Neg(step) h = Add(state, step) {_BLOCK.format(h="h")} }}> (q, steps) }}""",
    "nested": f"""({_GIVEN}, bool c) => ({_STATE} y) {_CONSTANTS} {{
        y = Loop (trips, yes, q) <body = a (int64 i, bool before, {_STATE} h) => (bool after, {_STATE} x) {{
            after = Identity(before)
            x = If (c) <then_branch = b () => ({_STATE} z) {{ {_BLOCK.format(h="h")} }},
                        else_branch = d () => ({_STATE} w) {{ w = Mul(h, s) }}> }}> }}""",
}


def load(graph: str) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"gain": (8,), "bias": (8,), "up": (8, 16), "down": (16, 8)}
    weights = {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    return parsed(f'<ir_version: 10, opset_import: ["" : 18]> g {GRAPHS[graph]}', weights)


@functools.cache
def cases(graph: str) -> list[Case]:
    return runnable(load(graph), {})


FAULTS = [
    Fault("attention", "another scale", attribute("Attention", "scale", lambda s: s * 1.1)),
    Fault("layer-norm", "epsilon times 10", attribute("LayerNormalization", "epsilon", lambda e: e * 10)),
    Fault("layer-norm-scale", "negated", through("LayerNormalization", 1, "Neg")),
    Fault("gelu", "tanh instead of erf", attribute("Gelu", "approximate", "tanh")),
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_site_is_found_and_fused(graph: str) -> None:
    model = canonicalize(load(graph))
    anchors = sites.find(model)
    each = EachPass(cases(graph))
    outcome = pipeline.run(model, pipeline.passes(target("cpu", "fp32"), "fp32"), each)
    settled = sites.settle(anchors, outcome.model, outcome.remarks)
    assert {(site.kind, site.status) for site in settled} == {(k, "fused") for k in ("attention", "norm", "activation")}
    assert len(settled) == 3 and not outcome.undone
    assert {"attention", "layer-norm-bias", "gelu"} <= {e.rule for e in each.evidence}
    assert all(e.worst.fine for e in [*each.evidence, *check_whole(load(graph), outcome.model, cases(graph), {})])
    fused = next(n for n in outcome.model.graph.all_nodes() if n.op_type == "LayerNormalization")
    assert rules_of(fused) == ["layer-norm", "layer-norm-scale", "layer-norm-bias"] and len(fused.inputs) == 3


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_whole_is_found_broken(graph: str, fault: Fault) -> None:
    outcome = pipeline.run(canonicalize(load(graph)), broken(fault))
    assert fires(outcome, fault.rule)
    assert not all(e.worst.fine for e in check_whole(load(graph), outcome.model, cases(graph), {}))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_rule_is_named_and_rolled_back(graph: str, fault: Fault) -> None:
    outcome = pipeline.run(canonicalize(load(graph)), broken(fault), EachPass(cases(graph)))
    assert {site.rule for site in outcome.undone} == {fault.rule}
    assert not fires(outcome, fault.rule)
    assert any(r.code == "parity" and r.rule == fault.rule for r in outcome.remarks)
    assert all(e.worst.fine for e in check_whole(load(graph), outcome.model, cases(graph), {}))
