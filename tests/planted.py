"""Faults that are planted in rules on purpose, each with a small graph where the rule fires."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.pipeline import Outcome, Pass
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import runnable
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.rule import Rule
from tests import golden
from tests.toy import encoder

ENCODER = "encoder"
Change = Callable[[Builder, ir.Node], None]


def attribute(op_type: str, name: str, value: Any) -> Change:
    """Set an attribute (None: drop it) of the built nodes of one type; a function maps the old value."""

    def change(op: Builder, node: ir.Node) -> None:
        if node.op_type != op_type:
            return
        new = value(node.attributes[name].value) if callable(value) else value
        if new is None:
            del node.attributes[name]
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, new)

    return change


def inputs(op_type: str, *order: int) -> Change:
    """Rearrange the inputs of the built nodes of one type; what is not named is dropped."""

    def change(op: Builder, node: ir.Node) -> None:
        if node.op_type == op_type:
            given = list(node.inputs)
            node.resize_inputs(len(order))
            for i, j in enumerate(order):
                node.replace_input_with(i, given[j])

    return change


def through(op_type: str, index: int, *wrappers: str) -> Change:
    """Put more operators in front of one input of the built nodes of one type."""

    def change(op: Builder, node: ir.Node) -> None:
        if node.op_type == op_type:
            v = node.inputs[index]
            for wrapper in wrappers:
                v = getattr(op, wrapper)(v)
            node.replace_input_with(index, v)

    return change


def operator(old: str, new: str) -> Change:
    """Build another operator."""

    def change(op: Builder, node: ir.Node) -> None:
        if node.op_type == old:
            node.op_type = new

    return change


def constant(change_data: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change every constant that the rewrite makes."""

    def change(op: Builder, node: ir.Node) -> None:
        for v in op.constants:
            if v in node.inputs:
                assert v.const_value is not None
                v.const_value = ir.tensor(change_data(v.const_value.numpy()).astype(v.const_value.numpy().dtype))

    return change


@dataclass(frozen=True)
class Fault:
    """A rule, what is done to the nodes that it builds, and a graph where it fires."""

    rule: str
    what: str
    change: Change
    graph: str = ENCODER

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


FAULTS = [
    Fault("layer-norm", "epsilon times 1000", attribute("LayerNormalization", "epsilon", lambda e: e * 1000)),
    Fault("layer-norm", "default epsilon", attribute("LayerNormalization", "epsilon", None)),
    Fault("layer-norm", "wrong axis", attribute("LayerNormalization", "axis", -2)),
    Fault("layer-norm", "mean kept", operator("LayerNormalization", "RMSNormalization")),
    Fault("layer-norm", "scale of twos", constant(lambda ones: 2 * ones)),
    Fault("layer-norm-scale", "negated", through("LayerNormalization", 1, "Neg")),
    Fault("layer-norm-scale", "epsilon times 10", attribute("LayerNormalization", "epsilon", lambda e: e * 10)),
    Fault("layer-norm-bias", "bias dropped", inputs("LayerNormalization", 0, 1)),
    Fault("layer-norm-bias", "bias for scale", inputs("LayerNormalization", 0, 2, 1)),
    Fault("rms-norm", "mean removed", operator("RMSNormalization", "LayerNormalization"), "norm/rms-scale"),
    Fault("rms-norm", "epsilon times 1000", attribute("RMSNormalization", "epsilon", 0.01), "norm/rms-scale"),
    Fault("rms-norm-scale", "scale negated", through("RMSNormalization", 1, "Neg"), "norm/rms-scale"),
    Fault("gelu", "tanh instead of erf", attribute("Gelu", "approximate", "tanh")),
    Fault("gelu", "negated", through("Gelu", 0, "Neg")),
    Fault("gelu", "relu instead", operator("Gelu", "Relu")),
    Fault("gelu-tanh", "erf instead of tanh", attribute("Gelu", "approximate", "none"), "gelu/tanh"),
    Fault("attention", "scale doubled", attribute("Attention", "scale", lambda s: s * 2)),
    Fault("attention", "scale missing", attribute("Attention", "scale", None)),
    Fault("attention", "keys for values", inputs("Attention", 0, 2, 1, 3)),
    Fault("attention", "queries for keys", inputs("Attention", 1, 0, 2, 3)),
    Fault("attention", "mask sign flipped", through("Attention", 3, "Neg")),
    Fault("attention", "mask dropped", inputs("Attention", 0, 1, 2)),
    Fault("attention", "causal", attribute("Attention", "is_causal", 1)),
    Fault("attention", "capped", attribute("Attention", "softcap", 5.0)),
    Fault("attention", "mask not expanded", inputs("Expand", 0, 0)),
    Fault("attention", "mild mask", constant(lambda floor: 1e-38 * floor), "attention/where-keep"),
    Fault("attention", "guarded mask inverted", through("Attention", 3, "Not"), "attention/guarded-keep"),
    Fault("attention-heads", "another number of heads", attribute("Attention", "q_num_heads", 4)),
    Fault("attention-heads", "scale missing", attribute("Attention", "scale", None)),
    Fault("attention-heads", "mask dropped", inputs("Attention", 0, 1, 2)),
    Fault("attention-heads", "values for queries", inputs("Attention", 2, 1, 0, 3)),
    Fault("scores-scale", "inverted", constant(lambda s: 1 / s), "scale/on-queries"),
    Fault("scores-scale", "twice", constant(lambda s: s * s), "scale/on-both"),
    Fault("view-scale", "doubled", constant(lambda s: 2 * s), "scale/through-views"),
    Fault("view-scale", "another permutation", attribute("Transpose", "perm", [0, 1]), "scale/default-perm"),
    Fault("quick-gelu", "alpha of silu", attribute("QuickGelu", "alpha", 1.0), "lower/quick-gelu"),
    Fault("silu", "alpha of quick-gelu", attribute("QuickGelu", "alpha", 1.702), "lower/silu"),
]


def break_rule(rule: Rule, fault: Fault) -> Rule:
    """The rule with the fault in all that it builds; others stay as they are."""
    if rule.name != fault.rule:
        return rule

    def rewrite(op: Builder, m: Match) -> Any:
        built = rule.rewrite(op, m)
        for node in list(op.nodes):
            fault.change(op, node)
        ordered = _in_order(op.nodes)
        op.nodes[:] = ordered
        return built

    return replace(rule, rewrite=rewrite)


def _in_order(nodes: list[ir.Node]) -> list[ir.Node]:
    """Producers before their users: a fault may have put a node in front of another."""
    left, done = list(nodes), []
    while left:
        ready = next(n for n in left if not any(v is not None and v.producer() in left for v in n.inputs))
        left.remove(ready)
        done.append(ready)
    return done


def broken(fault: Fault) -> list[Pass]:
    steps = pipeline.passes(target("cpu", "fp32"), "fp32")
    return [replace(step, rules=tuple(break_rule(rule, fault) for rule in step.rules)) for step in steps]


def load(graph: str) -> ir.Model:
    if graph == ENCODER:
        return encoder()
    return golden.read(golden.CASES / f"{graph}.txt").model()


@functools.cache
def cases(graph: str) -> list[Case]:
    return runnable(load(graph), {})


def fires(outcome: Outcome, rule: str) -> bool:
    return any(site.rule == rule for site in outcome.applied)
