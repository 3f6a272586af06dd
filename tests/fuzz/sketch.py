"""Seed graphs in few words: blocks of a Transformer written as ONNX text, in the spelling of an exporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.canonicalize import infer
from onnxsmith.passes.engine.names import name_nodes
from tests.toy import parsed

HIDDEN, INNER, HEADS, HEAD = 16, 24, 2, 8
OPSET = 17  # the last one at which reductions take their axes as an attribute

_CONSTANTS = f"""
float one = {{1.0}}, float two = {{2.0}}, float three = {{3.0}}, float half = {{0.5}}, float eps = {{1e-5}},
float root_two = {{1.4142135}}, float cubic = {{0.044715}}, float slope = {{0.7978845608}}, float zero = {{0.0}},
float inverse_root = {{{HEAD**-0.5:.9f}}}, float root_size = {{{HEAD**0.5:.7f}}},
float lowest = {{-3.4028234663852886e38}}, float minus_inf = {{-1e9}},
float soft = {{20.0}}, int64 width = {{2}},
int64 first = {{0}}, int64 step = {{1}}, int64[1] last = {{-1}}, int64[2] middle = {{1, 2}},
int64[1] null = {{0}}, int64[1] half_head = {{{HEAD // 2}}}, int64[1] head = {{{HEAD}}}, int64[1] rows = {{1}},
int64[4] split = {{0, 0, {HEADS}, {HEAD}}}, int64[4] split_one = {{0, 0, 1, {HEAD}}},
int64[3] merge = {{0, 0, {HIDDEN}}}, int64[5] repeat = {{1, 1, {HEADS}, 1, 1}}, int64[1] second = {{2}},
int64[4] join = {{0, {HEADS}, -1, {HEAD}}}, int64[3] thirds = {{{HIDDEN}, {HIDDEN}, {HIDDEN}}},
float[2, 1, 1] slopes = {{0.25, 0.0625}}
"""


@dataclass
class Sketch:
    """Collects nodes as text and the shapes of the weights that they name. Every block returns its result's name."""

    inputs: str
    outputs: str
    lines: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _fresh: count[int] = field(default_factory=count)

    def op(self, kind: str, *inputs: str, out: str = "") -> str:
        """One node, as in ``op("Softmax<axis=-1>", scores)``; ``out`` names an output of the graph."""
        out = out or f"v{next(self._fresh)}"
        self.lines.append(f"{out} = {kind}({', '.join(inputs)})")
        return out

    def weight(self, name: str, *shape: int) -> str:
        self.shapes[name] = shape
        return name

    def linear(self, x: str, name: str, rows: int = HIDDEN, columns: int = HIDDEN, bias: bool = True) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}_weight", rows, columns))
        return self.op("Add", product, self.weight(f"{name}_bias", columns)) if bias else product

    def layer_norm(self, x: str, name: str, out: str = "") -> str:
        centred = self.op("Sub", x, self.op("ReduceMean<axes=[-1], keepdims=1>", x))
        square = self.op("Pow", centred, "two")
        variance = self.op("ReduceMean<axes=[-1], keepdims=1>", square)
        normal = self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, "eps")))
        scaled = self.op("Mul", normal, self.weight(f"{name}_gain", HIDDEN))
        return self.op("Add", scaled, self.weight(f"{name}_bias", HIDDEN), out=out)

    def rms_norm(self, x: str, name: str, out: str = "") -> str:
        variance = self.op("ReduceMean<axes=[-1], keepdims=1>", self.op("Pow", x, "two"))
        factor = self.op("Reciprocal", self.op("Sqrt", self.op("Add", variance, "eps")))
        return self.op("Mul", self.op("Mul", x, factor), self.weight(f"{name}_gain", HIDDEN), out=out)

    def gelu(self, x: str) -> str:
        gate = self.op("Add", self.op("Erf", self.op("Div", x, "root_two")), "one")
        return self.op("Mul", self.op("Mul", x, "half"), gate)

    def gelu_tanh(self, x: str) -> str:
        inner = self.op("Add", x, self.op("Mul", self.op("Pow", x, "three"), "cubic"))
        gate = self.op("Add", self.op("Tanh", self.op("Mul", inner, "slope")), "one")
        return self.op("Mul", self.op("Mul", x, "half"), gate)

    def feed_forward(self, x: str, activation: str, name: str = "ffn") -> str:
        inner = getattr(self, activation)(self.linear(x, f"{name}_up", HIDDEN, INNER))
        return self.linear(inner, f"{name}_down", INNER, HIDDEN)

    def gated(self, x: str, activation: str, name: str = "ffn") -> str:
        gate = self.linear(x, f"{name}_gate", HIDDEN, INNER, bias=False)
        up = self.linear(x, f"{name}_up", HIDDEN, INNER, bias=False)
        active = self.op("Mul", gate, self.op("Sigmoid", gate)) if activation == "silu" else self.gelu(gate)
        return self.linear(self.op("Mul", active, up), f"{name}_down", INNER, HIDDEN, bias=False)

    def heads(self, x: str, split: str = "split") -> str:
        """[B, S, H*D] to [B, H, S, D]."""
        return self.op("Transpose<perm=[0, 2, 1, 3]>", self.op("Reshape", x, split))

    def repeated(self, x: str) -> str:
        """One head of keys or values for every query head: [B, 1, T, D] to [B, H, T, D], as ``repeat_kv`` does."""
        wide = self.op("Expand", self.op("Unsqueeze", x, "second"), "repeat")
        return self.op("Reshape", wide, "join")

    def rotated(self, x: str) -> str:
        """Rotary embedding of halves, with the inputs ``cos`` and ``sin`` [B, 1, S, D]; Su et al., arXiv:2104.09864."""
        low = self.op("Slice", x, "null", "half_head", "last")
        high = self.op("Slice", x, "half_head", "head", "last")
        turned = self.op("Concat<axis=-1>", self.op("Neg", high), low)
        return self.op("Add", self.op("Mul", x, "cos"), self.op("Mul", turned, "sin"))

    def rotated_pairs(self, x: str) -> str:
        """Rotary embedding of neighbours, as in GPT-J: each number with the one behind it."""
        even = self.op("Slice", x, "null", "head", "last", "second")
        odd = self.op("Slice", x, "rows", "head", "last", "second")
        pairs = [self.op("Unsqueeze", part, "last") for part in (self.op("Neg", odd), even)]
        turned = self.op("Reshape", self.op("Concat<axis=-1>", *pairs), "join")
        return self.op("Add", self.op("Mul", x, "cos"), self.op("Mul", turned, "sin"))

    def padding(self, mask: str = "mask") -> str:
        """int64 [B, T] to an additive float mask [B, 1, 1, T]."""
        kept = self.op("Cast<to=1>", self.op("Unsqueeze", mask, "middle"))
        return self.op("Mul", self.op("Sub", "one", kept), "lowest")

    def causal(self, x: str = "x") -> str:
        """A boolean mask [S, S] that is true at the keys up to each query."""
        length = self.op("Squeeze", self.op("Shape<start=1, end=2>", x))
        steps = self.op("Range", "first", length, "step")
        return self.op("LessOrEqual", self.op("Unsqueeze", steps, "null"), self.op("Unsqueeze", steps, "rows"))

    def alibi(self, x: str = "x") -> str:
        """A bias [H, S, S] that grows with the distance to the key, by a slope for each head; arXiv:2108.12409."""
        length = self.op("Squeeze", self.op("Shape<start=1, end=2>", x))
        steps = self.op("Range", "first", length, "step")
        key, query = self.op("Unsqueeze", steps, "null"), self.op("Unsqueeze", steps, "rows")
        return self.op("Mul", self.op("Cast<to=1>", self.op("Sub", key, query)), "slopes")

    def window(self, x: str = "x") -> str:
        """A boolean mask [S, S] that is true at each query's own key and the one before it."""
        length = self.op("Squeeze", self.op("Shape<start=1, end=2>", x))
        steps = self.op("Range", "first", length, "step")
        key, query = self.op("Unsqueeze", steps, "null"), self.op("Unsqueeze", steps, "rows")
        near = self.op("Less", self.op("Sub", query, key), "width")
        return self.op("And", self.op("LessOrEqual", key, query), near)

    def attend(
        self, q: str, k: str, v: str, mask: str = "", keep: str = "", scaled: bool = True, cap: bool = False
    ) -> str:
        """q, k, v [B, H, S, D] to [B, S, H*D]; ``mask`` is added, ``keep`` is a boolean, ``cap`` bends the scores."""
        scores = self.op("MatMul", q, self.op("Transpose<perm=[0, 1, 3, 2]>", k))
        if scaled:  # exporters write both
            scores = self.op("Mul", scores, "inverse_root") if keep else self.op("Div", scores, "root_size")
        if cap:
            scores = self.op("Mul", self.op("Tanh", self.op("Div", scores, "soft")), "soft")
        scores = self.op("Add", scores, mask) if mask else scores
        scores = self.op("Where", keep, scores, "minus_inf") if keep else scores
        context = self.op("MatMul", self.op("Softmax<axis=-1>", scores), v)
        return self.op("Reshape", self.op("Transpose<perm=[0, 2, 1, 3]>", context), "merge")

    def attention(self, x: str, y: str = "", name: str = "attention", mask: str = "", keep: str = "") -> str:
        """Queries from ``x``, keys and values from ``y`` (else ``x``), projected in and out."""
        q, k, v = (self.heads(self.linear(s, f"{name}_{n}")) for n, s in (("q", x), ("k", y or x), ("v", y or x)))
        return self.linear(self.attend(q, k, v, mask, keep), f"{name}_out")

    def model(self, seed: int = 0) -> ir.Model:
        """The graph with random weights, every node named and every shape inferred."""
        used = "\n".join(self.lines)
        text = f'<ir_version: 10, opset_import: ["" : {OPSET}]>\nseed ({self.inputs}) => ({self.outputs})\n'
        rng = np.random.default_rng(seed)
        weights = {name: rng.normal(0, 0.4, shape) for name, shape in self.shapes.items()}
        model = parsed(f"{text}<{_CONSTANTS}>\n{{\n{used}\n}}", weights)
        name_nodes(model)
        infer(model)
        return model
