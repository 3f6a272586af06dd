"""ONNX operators over the fields: each as its specification says, on :class:`~tests.prove.field.Element`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.prove.field import Element, Unproved, exactly

Values = Sequence[Any]  # Elements; arrays of integers and booleans; None for an input left out
Operator = Callable[[Values, dict[str, Any]], Any]
OPERATORS: dict[tuple[str, str], Operator] = {}
CONTRIB = "com.microsoft"


def operator(name: str, domain: str = "") -> Callable[[Operator], Operator]:
    def enter(function: Operator) -> Operator:
        OPERATORS[domain, name] = function
        return function

    return enter


def element(x: Any) -> Element:
    return x if isinstance(x, Element) else exactly(np.asarray(x))


def number(x: float) -> Element:
    return exactly(np.float32(x))


OPERATORS["", "Add"] = lambda v, a: element(v[0]) + element(v[1])
OPERATORS["", "Sub"] = lambda v, a: element(v[0]) - element(v[1])
OPERATORS["", "Mul"] = lambda v, a: element(v[0]) * element(v[1])
OPERATORS["", "Div"] = lambda v, a: element(v[0]) * element(v[1]).inverse()
OPERATORS["", "Neg"] = lambda v, a: -element(v[0])
OPERATORS["", "Reciprocal"] = lambda v, a: element(v[0]).inverse()
OPERATORS["", "Exp"] = lambda v, a: v[0].exp()
OPERATORS["", "Identity"] = lambda v, a: v[0]
OPERATORS["", "Dropout"] = lambda v, a: v[0]
OPERATORS["", "Sigmoid"] = lambda v, a: sigmoid(v[0])
OPERATORS["", "Swish"] = lambda v, a: v[0] * sigmoid(v[0] * number(a.get("alpha", 1.0)))
OPERATORS[CONTRIB, "QuickGelu"] = lambda v, a: v[0] * sigmoid(v[0] * number(a.get("alpha", 1.702)))
OPERATORS[CONTRIB, "BiasGelu"] = lambda v, a: gelu(v[0] + v[1], "none")
OPERATORS[CONTRIB, "FastGelu"] = lambda v, a: gelu(v[0] + v[1] if len(v) > 1 and v[1] is not None else v[0], "tanh")
OPERATORS["", "Gelu"] = lambda v, a: gelu(v[0], a.get("approximate", "none"))
OPERATORS["", "Tanh"] = lambda v, a: tanh(v[0])
for _name in ("Erf", "Sqrt", "Log", "Cos", "Sin", "Relu", "Softplus", "Abs", "Floor"):
    OPERATORS["", _name] = lambda v, a, name=_name: element(v[0]).random(name)


def sigmoid(x: Element) -> Element:
    return (number(1) + (-x).exp()).inverse()


def tanh(x: Element) -> Element:
    return number(2) * sigmoid(number(2) * x) - number(1)


def gelu(x: Element, form: str) -> Element:
    if form == "tanh":
        inner = number(math.sqrt(2 / math.pi)) * (x + number(0.044715) * x * x * x)
        return number(0.5) * x * (number(1) + tanh(inner))
    return number(0.5) * x * (number(1) + (x * number(math.sqrt(0.5))).random("Erf"))


@operator("Pow")
def _pow(v: Values, a: dict[str, Any]) -> Element:
    exponents = np.unique(_plain(v[1]))
    if len(exponents) != 1:
        raise Unproved("several exponents")
    exponent = float(exponents[0])
    root = element(v[0]).random("Sqrt") if exponent % 1 else element(v[0])
    times = abs(exponent) * (2 if exponent % 1 else 1)
    if times % 1 or times > 8 or times < 1:
        raise Unproved(f"the exponent {exponent}")
    found = root
    for _ in range(int(times) - 1):
        found = found * root
    return found.inverse() if exponent < 0 else found


def _plain(x: Any) -> NDArray[Any]:
    """A constant as floats: small dyadic numbers are found again from their residues only when they are whole."""
    if not isinstance(x, Element):
        return np.asarray(x, np.float64)
    known = {tuple(map(int, (e.p, e.q))): value for value in (0.5, -0.5, 1, -1, 2, -2, 3, 4) for e in (number(value),)}  # type: ignore[arg-type]
    assert x.q is not None
    pairs = list(zip(x.p.ravel().tolist(), x.q.ravel().tolist(), strict=True))
    if any(pair not in known for pair in pairs):
        raise Unproved("a computed exponent")
    return np.array([known[pair] for pair in pairs])


@operator("Cast")
@operator("CastLike")
def _cast(v: Values, a: dict[str, Any]) -> Any:
    if isinstance(v[0], Element):
        if a.get("to", 1) not in (1, 10, 11, 16):
            raise Unproved("numbers cast to whole ones")
        return v[0]  # precisions are all exact here
    return NotImplemented if a.get("to", 1) not in (1, 10, 11, 16) else exactly(v[0])


@operator("Where")
def _where(v: Values, a: dict[str, Any]) -> Any:
    if not any(isinstance(x, Element) for x in v[1:]):
        return NotImplemented
    yes, no = element(v[1]), element(v[2])
    q = None if yes.q is None or no.q is None else np.where(v[0], yes.q, no.q)
    return Element(np.where(v[0], yes.p, no.p), q, np.where(v[0], yes.infinite, no.infinite))


def _less(v: Values, a: dict[str, Any]) -> NDArray[np.bool_]:
    """With what is infinite: all numbers are above the lowest."""
    x, y = element(v[0]), element(v[1])
    known = (x.infinite != 0) | (y.infinite != 0)
    if not known.all():
        raise Unproved("a comparison of numbers")
    found: NDArray[np.bool_] = x.infinite < y.infinite
    return found


OPERATORS["", "Less"] = _less
OPERATORS["", "Greater"] = lambda v, a: _less(v[::-1], a)


@operator("IsNaN")
def _is_nan(v: Values, a: dict[str, Any]) -> NDArray[np.bool_]:
    return np.zeros(v[0].shape, bool)  # no row of a mask is blocked whole


@operator("MatMul")
def _matmul(v: Values, a: dict[str, Any]) -> Element:
    x, y = element(v[0]), element(v[1])
    left, right = len(x.shape) == 1, len(y.shape) == 1
    x, y = x.map(lambda d: d[None]) if left else x, y.map(lambda d: d[:, None]) if right else y
    found = x @ y
    found = found.map(lambda d: d[..., 0]) if right else found
    return found.map(lambda d: d[..., 0, :] if not right else d[..., 0]) if left else found


@operator("Gemm")
def _gemm(v: Values, a: dict[str, Any]) -> Element:
    x = v[0].map(np.transpose) if a.get("transA") else element(v[0])
    y = element(v[1]).map(np.transpose) if a.get("transB") else element(v[1])
    found = number(a.get("alpha", 1.0)) * (x @ y)
    return found + number(a.get("beta", 1.0)) * element(v[2]) if len(v) > 2 and v[2] is not None else found


@operator("Einsum")
def _einsum(v: Values, a: dict[str, Any]) -> Element:
    """As one large outer product, summed over what the result does not name."""
    inputs, _, result = a["equation"].replace(" ", "").partition("->")
    if "..." in inputs or not result or any(len(set(names)) < len(names) for names in inputs.split(",")):
        raise Unproved(f"the equation {a['equation']}")
    names = [*result, *sorted(set(inputs) - {",", *result})]
    found = number(1)
    for letters, x in zip(inputs.split(","), v, strict=True):
        order = sorted(range(len(letters)), key=lambda i, letters=letters: names.index(letters[i]))
        at = tuple(slice(None) if name in letters else None for name in names)
        found = found * element(x).map(lambda d, order=order, at=at: np.transpose(d, order)[at])
    return found.sum(tuple(range(len(result), len(names))), keep=False) if len(names) > len(result) else found


def _axes(v: Values, a: dict[str, Any], rank: int) -> tuple[int, ...]:
    given = v[1] if len(v) > 1 and v[1] is not None else a.get("axes")
    if given is None or not np.size(given):
        return tuple(range(rank))
    return tuple(int(axis) % rank for axis in np.atleast_1d(given))


@operator("ReduceSum")
def _reduce_sum(v: Values, a: dict[str, Any]) -> Any:
    if not isinstance(v[0], Element):
        return NotImplemented
    return v[0].sum(_axes(v, a, len(v[0].shape)), bool(a.get("keepdims", 1)))


@operator("ReduceMean")
def _reduce_mean(v: Values, a: dict[str, Any]) -> Element:
    return mean(v[0], _axes(v, a, len(v[0].shape)), bool(a.get("keepdims", 1)))


@operator("ReduceSumSquare")
def _reduce_squares(v: Values, a: dict[str, Any]) -> Element:
    return (v[0] * v[0]).sum(_axes(v, a, len(v[0].shape)), bool(a.get("keepdims", 1)))


@operator("ReduceMax")
def _reduce_max(v: Values, a: dict[str, Any]) -> Any:
    """Some number that depends on all of them and on no order: rules only take it away again."""
    if not isinstance(v[0], Element):
        return NotImplemented
    x = Element(v[0].p * (v[0].infinite == 0), v[0].q, np.zeros_like(v[0].infinite))
    return x.random("ReduceMax").sum(_axes(v, a, len(x.shape)), bool(a.get("keepdims", 1)))


def mean(x: Element, axes: tuple[int, ...], keep: bool) -> Element:
    count = math.prod(x.shape[axis] for axis in axes)
    return x.sum(axes, keep) * exactly(np.asarray(count)).inverse()


@operator("Softmax")
def _softmax(v: Values, a: dict[str, Any]) -> Element:
    return softmax(v[0], a.get("axis", -1))


def softmax(x: Element, axis: int = -1) -> Element:
    powers = x.exp()
    return powers * powers.sum((axis % len(x.shape),), keep=True).inverse()


@operator("LayerNormalization")
def _layer_norm(v: Values, a: dict[str, Any]) -> Element:
    axes = tuple(range(a.get("axis", -1) % len(v[0].shape), len(v[0].shape)))
    centred = v[0] - mean(v[0], axes, keep=True)
    scaled = centred * _deviation(centred, axes, a.get("epsilon", 1e-5)).inverse() * element(v[1])
    return scaled + element(v[2]) if len(v) > 2 and v[2] is not None else scaled


@operator("RMSNormalization")
@operator("SimplifiedLayerNormalization")
def _rms_norm(v: Values, a: dict[str, Any]) -> Element:
    axes = tuple(range(a.get("axis", -1) % len(v[0].shape), len(v[0].shape)))
    return v[0] * _deviation(v[0], axes, a.get("epsilon", 1e-5)).inverse() * element(v[1])


def _deviation(x: Element, axes: tuple[int, ...], epsilon: float) -> Element:
    return (mean(x * x, axes, keep=True) + number(epsilon)).random("Sqrt")


@operator("SkipLayerNormalization", CONTRIB)
def _skip_layer_norm(v: Values, a: dict[str, Any]) -> tuple[Element | None, ...]:
    total = _total(v[0], v[1], v[4] if len(v) > 4 else None)
    return _layer_norm([total, v[2], v[3] if len(v) > 3 else None], a), None, None, total


@operator("SkipSimplifiedLayerNormalization", CONTRIB)
def _skip_rms_norm(v: Values, a: dict[str, Any]) -> tuple[Element | None, ...]:
    total = _total(v[0], v[1], v[3] if len(v) > 3 else None)
    return _rms_norm([total, v[2]], a), None, None, total


@operator("EmbedLayerNormalization", CONTRIB)
def _embed(v: Values, a: dict[str, Any]) -> tuple[Element | None, ...]:
    ids, segments, words, places, kinds, gain, bias = (*v, None)[:7]
    length = ids.shape[1]
    at = v[8] if len(v) > 8 and v[8] is not None else np.arange(length)[None]
    total = words.map(lambda d: d[ids]) + places.map(lambda d: d[at])
    if kinds is not None:
        total = total + kinds.map(lambda d: d[segments])
    return _layer_norm([total, gain, bias], a), None, total


def _total(x: Element, skip: Element, bias: Element | None) -> Element:
    return x + skip if bias is None else x + skip + bias
