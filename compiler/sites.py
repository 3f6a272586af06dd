"""Sites: every attention, normalisation and feed-forward activation of a graph, found without the rules.

Finding them independently is what makes "missed" mean something: a rule that silently does nothing leaves a site
that this module still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import onnx_ir as ir

from onnxsmith.passes.canonicalize import views
from onnxsmith.passes.engine.provenance import module_of, origins, rule_of, rules_of
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, constant, dims, scalar
from onnxsmith.passes.lift.masks import meaning_of

_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"})
_NORMS = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "EmbedLayerNormalization",
    }
)
_ACTIVATIONS = frozenset({"Gelu", "Relu", "FastGelu", "BiasGelu", "QuickGelu", "Swish"})
_CURVES = frozenset({"Erf", "Tanh", "Sigmoid"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "FusedGemm"})
_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Where", "Max", "Min", "Cast", "Neg", "IsNaN", "Clip", "Dropout", "Identity"}
) | frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Split", "Slice"})
_ROUNDING = frozenset({"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"})
_PASSED = _ELEMENTWISE | _ROUNDING | _CURVES | _ACTIVATIONS
_OUTSIDE = "the epsilon is outside the root: no operator computes that"
_REACH = 8  # elementwise steps between the parts of one site; the longest spelling known has six


@dataclass(frozen=True)
class Site:
    """One place where a Transformer graph should hold one operator.

    ``status`` is "fused" (by ``rule``), "already fused" (by whoever made the file), "missed" (for ``reason``) or
    "inexpressible": no operator computes it, and ``reason`` says why.
    ``where`` is the PyTorch module path when the exporter recorded it, else the node's name.
    """

    kind: str
    where: str
    status: str
    rule: str | None = None
    detail: str = ""
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Anchor:
    """A site in the graph as it came: the node that every spelling of it must have."""

    kind: str
    node: str
    where: str
    fused: bool
    inexpressible: str | None = None


def find(model: ir.Model) -> list[Anchor]:
    """The sites of a canonical, not yet lifted graph, in graph order."""
    found = []
    for node in model.graph.all_nodes():
        kind, fused = _kind(node)
        where = module_of(node) or str(node.name)
        if kind:
            found.append(Anchor(kind, str(node.name), where, fused))
        elif _is_guarded_outside(node):
            found.append(Anchor("norm", str(node.name), where, False, _OUTSIDE))
    return found


def _kind(node: ir.Node) -> tuple[str, bool]:
    if node.op_type in _ATTENTION:
        return "attention", True
    if node.op_type in _NORMS:
        return ("", False) if constant(node.inputs[0]) is not None else ("norm", True)  # of weights: a weight
    if node.op_type in _ACTIVATIONS:
        return ("activation", True) if _between_products(node) else ("", False)
    if node.op_type == "Softmax" and _scores(node) and _reaches(_readers, node, _is_product):
        return "attention", False
    if _is_deviation(node):
        return "norm", False
    if node.op_type in _CURVES and _gates_its_input(node) and _between_products(node):
        return "activation", False
    return "", False


def _scores(softmax: ir.Node) -> bool:
    return _reaches(_producers, softmax, lambda n: _is_product(n) and not any(map(constant, n.inputs)))


def _is_product(node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Einsum", "FusedMatMul")


def _is_deviation(node: ir.Node) -> bool:
    """The root of a mean, guarded by an epsilon: what every normalisation has."""
    add = node.inputs[0].producer() if _is_root(node) and node.inputs[0] is not None else None
    if add is None or add.op_type != "Add" or not any(constant(v) is not None for v in add.inputs):
        return False
    return any(p is not None and p.op_type == "ReduceMean" for p in (v.producer() for v in add.inputs if v))


def _is_root(node: ir.Node) -> bool:
    return node.op_type == "Sqrt" or (node.op_type == "Pow" and scalar(node.inputs[1]) in (0.5, -0.5))


def _is_guarded_outside(node: ir.Node) -> bool:
    """A deviation or a length that divides what it is computed from, its epsilon added or compared after the root."""
    length = node.op_type == "ReduceL2" and _reaches(_readers, node, _scales)
    if not length and not (_is_root(node) and _reaches(_producers, node, _is_mean)):
        return False
    guards = [n for n in _readers(node) if n.op_type in ("Add", "Max", "Clip") and any(map(constant, n.inputs[1:]))]
    return any(_divides(value) for guard in guards for value in guard.outputs)


def _is_mean(node: ir.Node) -> bool:
    return node.op_type in ("ReduceMean", "ReduceSum", "ReduceSumSquare")


def _scales(node: ir.Node) -> bool:
    """A product with a weight of each feature."""
    weights = [c for v in node.inputs if (c := constant(v)) is not None]
    return node.op_type == "Mul" and any(c.size > 1 for c in weights)


def _divides(value: ir.Value) -> bool:
    """Whether the value is a divisor, as it is or expanded to the dividend's shape."""
    return any(
        (user.op_type == "Div" and at == 1) or (user.op_type in ("Expand", "Reshape") and _divides(user.outputs[0]))
        for user, at in value.uses()
    )


def _gates_its_input(curve: ir.Node) -> bool:
    """Whether the curve's result is multiplied with a value that the curve itself is computed from."""
    above = set(_within(_producers, curve))
    sources = {v for n in [curve, *above] for v in n.inputs if v is not None and constant(v) is None}
    products = [n for n in _within(_readers, curve) if n.op_type == "Mul"]
    factors = {v for n in products for v in n.inputs if v is not None and v.producer() is not curve}
    scaled = {u for v in factors if (p := v.producer()) is not None for u in p.inputs}  # 0.5 * x, say
    return not sources.isdisjoint(factors | scaled)


def _between_products(node: ir.Node) -> bool:
    return _reaches(_producers, node, _weighted) and _reaches(_readers, node, _weighted)


def _weighted(node: ir.Node) -> bool:
    return node.op_type in _PRODUCTS and any(constant(v) is not None for v in node.inputs[1:2])


def _producers(node: ir.Node) -> list[ir.Node]:
    return [p for v in node.inputs if v is not None and (p := v.producer()) is not None]


def _readers(node: ir.Node) -> list[ir.Node]:
    return [user for v in node.outputs for user, _ in v.uses()]


Step = Callable[[ir.Node], list[ir.Node]]


def _within(step: Step, node: ir.Node) -> Iterator[ir.Node]:
    """Nodes reached through elementwise operators and views, the first other operator on each way included."""
    seen, frontier = {node}, [node]
    for _ in range(_REACH):
        frontier = list(dict.fromkeys(n for f in frontier for n in step(f) if n not in seen))
        seen.update(frontier)
        yield from frontier
        frontier = [n for n in frontier if n.op_type in _PASSED or _joins_codes(n)]


def _joins_codes(node: ir.Node) -> bool:
    """Codes of an activation, and of channels added to it: see passes/quantize/excess.py."""
    return node.op_type == "Concat" and all(n.op_type == "QuantizeLinear" for n in _producers(node))


def _reaches(step: Step, node: ir.Node, wanted: Callable[[ir.Node], bool]) -> bool:
    return any(wanted(n) for n in _within(step, node))


def settle(anchors: list[Anchor], compiled: ir.Model | Sequence[ir.Model], remarks: list[Remark]) -> list[Site]:
    """What became of each site in the compiled graphs: from recorded provenance, not from what rules claim."""
    models = [compiled] if isinstance(compiled, ir.Model) else compiled
    found = [n for model in models for n in model.graph.all_nodes()]
    nodes = {str(n.name): n for n in found}
    makers: dict[str, list[ir.Node]] = {}
    for node in found:
        for name in origins(node) if rule_of(node) else ():
            makers.setdefault(name, []).append(node)
    reasons = {r.node: r for r in remarks if r.kind == "missed"}
    return [_settled(anchor, nodes, makers, reasons) for anchor in anchors]


_RESULTS = {"attention": _ATTENTION, "norm": _NORMS, "activation": _ACTIVATIONS}


def _settled(
    anchor: Anchor, nodes: dict[str, ir.Node], makers: dict[str, list[ir.Node]], reasons: dict[str, Remark]
) -> Site:
    made = [n for n in makers.get(anchor.node, []) if n.op_type in _RESULTS[anchor.kind]]
    node = made[0] if made else nodes.get(anchor.node)
    detail = _detail(anchor.kind, node) if node is not None else ""
    if made and not anchor.fused:
        return Site(anchor.kind, anchor.where, "fused", _rules(made[0]), detail)
    if anchor.fused:
        rule = _rules(node) if node is not None else None
        return Site(anchor.kind, anchor.where, "fused" if rule else "already fused", rule, detail)
    if anchor.inexpressible:
        return Site(anchor.kind, anchor.where, "inexpressible", None, detail, anchor.inexpressible)
    remark = reasons.get(anchor.node)
    reason = remark.reason + (f" at {remark.at}" if remark.at else "") if remark else "no rule knows this form"
    return Site(anchor.kind, anchor.where, "missed", remark.rule if remark else None, detail, reason)


def _rules(node: ir.Node) -> str | None:
    """The rules that made the node, those that only tidied views left out."""
    return " + ".join(r for r in rules_of(node) if r != views.NAME) or None


def _detail(kind: str, node: ir.Node) -> str:
    if kind == "attention" and node.op_type in _ATTENTION:
        return _attention_detail(node)
    if kind == "norm":
        width = (dims(node.outputs[0]) or ["?"])[-1]
        return f"{node.op_type} over {width}"
    if kind == "activation":
        width = (dims(node.outputs[0]) or ["?"])[-1]
        gated = any(n.op_type == "Mul" and _weighted_gate(n) for n in _readers(node))
        form = attribute(node, "approximate")
        name = node.op_type + (f" ({form})" if form not in (None, "none") else "")
        return f"{name} over {width}" + (", gated" if gated else "")
    return ""


def _weighted_gate(mul: ir.Node) -> bool:
    return all(constant(v) is None for v in mul.inputs) and _reaches(_readers, mul, _weighted)


def _attention_detail(node: ir.Node) -> str:
    projects = node.op_type == "Attention" and node.domain  # ORT's own takes what it makes the queries of
    q = dims(node.outputs[0] if projects else node.inputs[0])
    heads = attribute(node, "q_num_heads") or attribute(node, "num_heads")
    if heads is None and q is not None and len(q) == 4:
        heads = q[1]
    width = q[-1] if q is not None else None
    size = width if q is not None and len(q) == 4 else (width // heads if isinstance(width, int) and heads else "?")
    meaning = meaning_of(node)
    mask = f", mask {meaning}" if meaning is not None else ""
    return f"{heads} heads of {size}{mask}"
