"""A BERT-like encoder of one layer as ONNX text, in the spelling of an exporter: nothing fused, shapes computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

HIDDEN, INNER, HEADS, VOCABULARY, POSITIONS = 32, 64, 2, 50, 64

_NORM = """
    {p}_mean = ReduceMean<keepdims=1>({x}, last)
    {p}_centred = Sub({x}, {p}_mean)
    {p}_squared = Pow({p}_centred, two)
    {p}_variance = ReduceMean<keepdims=1>({p}_squared, last)
    {p}_guarded = Add({p}_variance, eps)
    {p}_deviation = Sqrt({p}_guarded)
    {p}_normal = Div({p}_centred, {p}_deviation)
    {p}_scaled = Mul({p}_normal, {p}_gain)
    {y} = Add({p}_scaled, {p}_bias)
"""
_HEADS = """
    {n}_product = MatMul(embedded, {n}_weight)
    {n}_sum = Add({n}_product, {n}_bias)
    {n}_split = Reshape({n}_sum, split)
    {n}_heads = Transpose<perm=[0, 2, {perm}]>({n}_split)
"""
_TEXT = (
    """
<ir_version: 10, opset_import: ["" : 18]>
encoder (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
    => (float[batch, sequence, 32] hidden)
<float one = {1.0}, float two = {2.0}, float half = {0.5}, float eps = {2e-5}, float root_size = {5.0},
 float root_two = {1.4142135}, float lowest = {-3.4028234663852886e38}, int64 zero = {0}, int64 step = {1},
 int64[1] last = {-1}, int64[2] middle = {1, 2}, int64[4] split = {0, 0, 2, 16}, int64[3] merge = {0, 0, 32}>
{
    words = Gather(word_table, input_ids)
    shape = Shape<start=1, end=2>(input_ids)
    length = Squeeze(shape)
    positions = Range(zero, length, step)
    placed = Gather(position_table, positions)
    summed = Add(words, placed)
"""
    + _NORM.format(p="norm0", x="summed", y="embedded")
    + """
    wide = Unsqueeze(attention_mask, middle)
    kept = Cast<to=1>(wide)
    blocked = Sub(one, kept)
    mask = Mul(blocked, lowest)
"""
    + _HEADS.format(n="query", perm="1, 3")
    + _HEADS.format(n="key", perm="3, 1")
    + _HEADS.format(n="value", perm="1, 3")
    + """
    scores = MatMul(query_heads, key_heads)
    scaled = Div(scores, root_size)
    masked = Add(scaled, mask)
    probabilities = Softmax<axis=-1>(masked)
    context = MatMul(probabilities, value_heads)
    turned = Transpose<perm=[0, 2, 1, 3]>(context)
    merged = Reshape(turned, merge)
    output_product = MatMul(merged, output_weight)
    output_sum = Add(output_product, output_bias)
    residual = Add(output_sum, embedded)
"""
    + _NORM.format(p="norm1", x="residual", y="attended")
    + """
    up_product = MatMul(attended, up_weight)
    up = Add(up_product, up_bias)
    argument = Div(up, root_two)
    curve = Erf(argument)
    gate = Add(curve, one)
    half_up = Mul(up, half)
    active = Mul(half_up, gate)
    down_product = MatMul(active, down_weight)
    down = Add(down_product, down_bias)
    again = Add(down, attended)
"""
    + _NORM.format(p="norm2", x="again", y="hidden")
    + "}"
)


def encoder() -> ir.Model:
    """int64 input_ids and attention_mask [batch, sequence] to hidden float32 [batch, sequence, 32]."""
    shapes: dict[str, tuple[int, ...]] = {
        "word_table": (VOCABULARY, HIDDEN),
        "position_table": (POSITIONS, HIDDEN),
        "up_weight": (HIDDEN, INNER),
        "up_bias": (INNER,),
        "down_weight": (INNER, HIDDEN),
        "down_bias": (HIDDEN,),
    }
    for name in ("query", "key", "value", "output"):
        shapes |= {f"{name}_weight": (HIDDEN, HIDDEN), f"{name}_bias": (HIDDEN,)}
    for i in range(3):
        shapes |= {f"norm{i}_gain": (HIDDEN,), f"norm{i}_bias": (HIDDEN,)}
    rng = np.random.default_rng(0)
    return parsed(_TEXT, {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()})


def parsed(text: str, weights: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """ONNX text with float32 initializers by name."""
    proto = onnx.parser.parse_model(text)
    for name, data in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(data, np.float32), name))
    return ir.from_proto(proto)
