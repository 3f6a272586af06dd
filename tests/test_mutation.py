"""Faults in whole compiled decoders with a cache: the final verification notices each of them.

Those of single rules are in tests/planted.py. Together they are what `docs/verification.md` counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.cached import check_cached
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.target import target
from onnxsmith.compiler.verify import Evidence, runnable
from tests.planted import FAULTS
from tests.test_cache_pass import BOUNDS, compiled, plain

Change = Callable[[ir.Model], None]
CACHED = "GroupQueryAttention"
LEAST = 60


def attribute(op_type: str, name: str, value: Any) -> Change:
    def change(model: ir.Model) -> None:
        node = first(model, op_type)
        old = node.attributes[name].value if name in node.attributes else None
        node.attributes[name] = ir.convenience.convert_attribute(name, value(old) if callable(value) else value)

    return change


def first(model: ir.Model, op_type: str, nth: int = 0) -> ir.Node:
    return [n for n in model.graph if n.op_type == op_type][nth]


def operator(old: str, new: str) -> Change:
    def change(model: ir.Model) -> None:
        first(model, old).op_type = new

    return change


def constant(op_type: str, index: int, data: Callable[[np.ndarray], np.ndarray], nth: int = 0) -> Change:
    """Another constant at one input of one node."""

    def change(model: ir.Model) -> None:
        node = first(model, op_type, nth)
        v = node.inputs[index]
        assert v is not None and v.const_value is not None
        array = v.const_value.numpy()
        new = ir.Value(name=f"{v.name}.changed", const_value=ir.tensor(data(array).astype(array.dtype)))
        model.graph.register_initializer(new)
        node.replace_input_with(index, new)

    return change


def swapped(op_type: str, index: int) -> Change:
    """One input of two nodes of a type, each taking the other's."""

    def change(model: ir.Model) -> None:
        one, two = first(model, op_type), first(model, op_type, 1)
        a, b = one.inputs[index], two.inputs[index]
        one.replace_input_with(index, b)
        two.replace_input_with(index, a)

    return change


def bypassed(op_type: str, index: int, nth: int = 0) -> Change:
    """A node left out: its users read one of its inputs."""

    def change(model: ir.Model) -> None:
        node = first(model, op_type, nth)
        given = node.inputs[index]
        assert given is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], given)

    return change


def dropped(op_type: str, index: int) -> Change:
    def change(model: ir.Model) -> None:
        first(model, op_type).replace_input_with(index, None)

    return change


def roll(axis: int, by: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.roll(array, by, axis)


def plus(x: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array + x


@dataclass(frozen=True)
class Mutation:
    kind: str  # of tests.test_cache_pass.plain
    what: str
    change: Change

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def head_swap(array: np.ndarray) -> np.ndarray:
    """Query heads of 16 in another order."""
    return np.concatenate([array[..., 16:32], array[..., :16], array[..., 32:]], axis=-1)


def keys_for_values(array: np.ndarray) -> np.ndarray:
    """Columns of packed q (4 heads of 16), k and v (2 each), k and v exchanged."""
    return np.concatenate([array[..., :64], array[..., 96:], array[..., 64:96]], axis=-1)


MUTATIONS = [
    Mutation("llama", "scale doubled", attribute(CACHED, "scale", lambda s: 2 * s)),
    Mutation("llama", "no rotation", attribute(CACHED, "do_rotary", 0)),
    Mutation("llama", "rotation of pairs", attribute(CACHED, "rotary_interleaved", 1)),
    Mutation("llama", "a window", attribute(CACHED, "local_window_size", 3)),
    Mutation("llama", "capped", attribute(CACHED, "softcap", 2.0)),
    Mutation("llama", "positions one late", constant(CACHED, 7, roll(0))),
    Mutation("llama", "positions one early", constant(CACHED, 8, roll(0, -1))),
    Mutation("llama", "rotated backwards", constant(CACHED, 8, np.negative)),
    Mutation("llama", "keys for values", constant("MatMul", 1, keys_for_values)),
    Mutation("llama", "heads in another order", constant("MatMul", 1, head_swap)),
    Mutation("llama", "the other layer's cache", swapped(CACHED, 3)),
    Mutation("llama", "the other layer's values", swapped(CACHED, 4)),
    Mutation("llama", "epsilon times 1000", attribute("RMSNormalization", "epsilon", lambda e: 1000 * e)),
    Mutation("llama", "gain of one channel off", constant("RMSNormalization", 1, roll(0))),
    Mutation("llama", "quick gelu for silu", attribute("QuickGelu", "alpha", 1.702)),
    Mutation("llama", "gate not applied", bypassed("Mul", 1)),
    Mutation("llama", "residual left out", bypassed("Add", 1)),
    Mutation("llama", "first token for last", operator("ReduceMax", "ReduceMin")),
    Mutation("llama", "lengths one short", constant("Sub", 1, plus(1))),
    Mutation("llama", "lengths one long", constant("Sub", 1, plus(-1))),
    Mutation("llama", "table of tokens off by one", constant("Gather", 0, roll(0))),
    Mutation("relative", "buckets from 15 on", constant("Less", 1, plus(-1))),
    Mutation("relative", "logarithm of another width", constant("Mul", 1, lambda x: 0.9 * x)),
    Mutation("relative", "table off by one", constant("Gather", 0, roll(0), nth=2)),
    Mutation("relative", "heads of the bias off by one", constant("Gather", 0, roll(1), nth=2)),
    Mutation("relative", "bias left out", dropped(CACHED, 10)),
    Mutation("relative", "gelu by erf", operator("FastGelu", "BiasGelu")),
    Mutation("learned", "positions off by one", constant("Gather", 0, roll(0), nth=1)),
    Mutation("learned", "no position", bypassed("Add", 0)),
    Mutation("learned", "mean kept", operator("LayerNormalization", "RMSNormalization")),
    Mutation("alibi", "bias left out", dropped(CACHED, 10)),
    Mutation("window", "window of two", attribute(CACHED, "local_window_size", lambda w: w - 1)),
    Mutation("window", "window of four", attribute(CACHED, "local_window_size", lambda w: w + 1)),
    Mutation("window", "no window", attribute(CACHED, "local_window_size", -1)),
]


@functools.cache
def subject(kind: str) -> tuple[ir.Model, list[Case]]:
    return compiled(plain(kind)).model, runnable(plain(kind).clone(), BOUNDS)


def verified(kind: str, model: ir.Model) -> list[Evidence]:
    return check_cached(plain(kind).clone(), model, subject(kind)[1], target("cpu", "fp32").session)


@pytest.mark.parametrize("kind", sorted({m.kind for m in MUTATIONS}))
def test_without_a_fault_all_is_fine(kind: str) -> None:
    assert all(e.worst.fine for e in verified(kind, subject(kind)[0].clone()))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_the_fault_is_noticed(mutation: Mutation) -> None:
    model = subject(mutation.kind)[0].clone()
    mutation.change(model)
    assert not all(e.worst.fine for e in verified(mutation.kind, model))


def test_there_are_many() -> None:
    assert len(MUTATIONS) + len(FAULTS) >= LEAST
