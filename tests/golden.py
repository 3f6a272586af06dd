"""Golden cases: a graph before and after some passes, and what was said about it, as text in one file.

passes: lift-norms-and-activations       the steps to run, in order; canonicalize may be the first
weights: w[32, 64] b[64]                 random float32 initializers (optional)
--- before                               ONNX text
--- after                                one line a node, see render()
--- remarks                              one line a remark
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize, infer
from onnxsmith.passes.engine.names import name_nodes
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import constant, dims
from tests.toy import parsed

CASES = Path(__file__).parent / "cases"
LENGTHS = {"B": 2, "S": 5, "T": 7, "U": 7, "D": 8}
_MOST_SHOWN = 8
_KNOWN = (("cuda", "bf16"), ("cuda", "fp16"), ("cuda", "fp32"), ("cpu", "int8"), ("cpu", "int4"))
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Golden:
    """One file, read."""

    path: Path
    head: str
    before: str
    after: str
    remarks: str

    @property
    def steps(self) -> list[str]:
        return _entry(self.head, "passes").split()

    def model(self) -> ir.Model:
        """The graph before, with its random weights, every node named and every shape inferred."""
        weights = re.findall(r"(\w+)\[([\d, ]+)\]", _entry(self.head, "weights"))
        rng = np.random.default_rng(0)
        model = parsed(
            self.before, {name: rng.standard_normal([int(n) for n in dims.split(",")]) for name, dims in weights}
        )
        name_nodes(model)
        infer(model)
        return model


def _entry(head: str, key: str) -> str:
    return next((line.partition(":")[2] for line in head.splitlines() if line.startswith(f"{key}:")), "")


def read(path: Path) -> Golden:
    """A new case may stop after its graph before; the rest is then empty."""
    parts = dict(re.findall(r"^--- (\w+)\n(.*?)(?=^--- |\Z)", text := path.read_text(), re.M | re.S))
    head = text.partition("--- ")[0]
    return Golden(path, head, parts["before"], parts.get("after", ""), parts.get("remarks", ""))


def write(case: Golden, after: str, remarks: str) -> None:
    case.path.write_text(f"{case.head}--- before\n{case.before}--- after\n{after}--- remarks\n{remarks}")


def rewrite(model: ir.Model, steps: list[str]) -> pipeline.Outcome:
    """Run the named steps on a copy of the model."""
    known = {s.name: s for t, p in _KNOWN for s in pipeline.passes(target(t, p), p, without_padding=True)}
    copy = model.clone()
    if steps[0] == "canonicalize":
        copy, steps = canonicalize(copy), steps[1:]
    return pipeline.run(copy, [known[name] for name in steps])


def render(model: ir.Model) -> str:
    """Inputs, nodes, constants in order of use, and outputs; attributes in alphabetical order."""
    lines = [f"in {_typed(v)}" for v in model.graph.inputs]
    for graph in model.graphs():
        lines += [f"# {graph.name}"] if graph is not model.graph else []
        lines += [_node(n) for n in graph]
    used = dict.fromkeys(v for n in model.graph.all_nodes() for v in n.inputs if constant(v) is not None)
    lines += [f"const {_typed(v)}{_literal(v)}" for v in used if v is not None]
    lines += [f"out {_typed(v)}" for v in model.graph.outputs]
    return "\n".join(lines) + "\n"


def render_remarks(remarks: list[Remark]) -> str:
    """Without the pattern's line: that moves with every edit."""
    return "".join(f"{r.kind} {r.rule}{_at(r)}{f': {r.reason}' if r.reason else ''}\n" for r in remarks)


def _at(remark: Remark) -> str:
    return f" at {remark.node}" if remark.node else ""


def _node(node: ir.Node) -> str:
    shown = [f"{k}={_attribute(a)}" for k, a in sorted(node.attributes.items())]
    domain = f"{node.domain}." if node.domain else ""
    inputs = ", ".join("_" if v is None else str(v.name) for v in node.inputs)
    outputs = ", ".join(str(v.name) for v in node.outputs)
    attributes = f"<{', '.join(shown)}>" if shown else ""
    return f"{outputs} = {domain}{node.op_type}{attributes}({inputs})"


def _attribute(a: ir.Attr) -> str:
    if isinstance(a.value, ir.Graph):
        return str(a.value.name)
    if isinstance(a.value, float):
        return f"{a.value:.6g}"
    return str(list(a.value) if isinstance(a.value, tuple) else a.value)


def _typed(v: ir.Value) -> str:
    shape = ", ".join(str(d) for d in dims(v) or [])
    return f"{v.dtype.name if v.dtype is not None else '?'}[{shape}] {v.name}"


def _literal(v: ir.Value) -> str:
    tensor = constant(v)
    assert tensor is not None
    data = tensor.numpy().ravel()
    if data.size and np.all(data == data[0]):
        return f" = {data[0]:.6g}"
    return f" = {', '.join(f'{x:.6g}' for x in data)}" if data.size <= _MOST_SHOWN else ""


def random_feeds(model: ir.Model, seed: int = 1) -> Values:
    """Random values for every input without a default. A boolean's first row is all false, its second all true."""
    rng = np.random.default_rng(seed)
    given = [v for v in model.graph.inputs if not v.is_initializer()]
    return {str(v.name): _random(v, [LENGTHS.get(d, d) for d in dims(v) or []], rng) for v in given}


def _random(v: ir.Value, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    assert v.dtype is not None
    if v.dtype.is_floating_point():
        return rng.standard_normal(shape).astype(v.dtype.numpy())
    bits = rng.integers(0, 2, shape)
    if bits.ndim > 1:
        rows = bits.reshape(-1, shape[-1])
        rows[0], rows[1:2] = 0, 1
    return bits.astype(v.dtype.numpy())
