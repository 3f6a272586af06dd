"""Channels of even size: the same results, activations that blocks of codes resolve, and what must stay as it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.calibrate import sizes
from onnxsmith.compiler.region import expose
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize.even import even_channels
from tests.toy import encoder, parsed

# A decoder's layer behind its head's own table: two heads of values serve four of queries.
_LAYER = """
<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,S] ids) => (float[B,S,5000] logits) <float half = {0.5}>
{
    x = Gather(table, ids)
    n = LayerNormalization<axis=-1>(x, gain, shift)
    q = MatMul(n, wq)  k = MatMul(n, wk)  vp = MatMul(n, wv)  v = Add(vp, bv)
    mixed = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, v)
    o = MatMul(mixed, wo)
    y = Add(x, o)
    m = RMSNormalization<axis=-1>(y, gain2)
    g0 = MatMul(m, wg)  g1 = Sigmoid(g0)  g2 = Mul(g0, g1)  u = MatMul(m, wu)
    gated = Mul(g2, u)
    d = MatMul(gated, wd)
    z = Add(y, d)
    f = RMSNormalization<axis=-1>(z, gain3)
    h = Mul(f, half)
    turned = Transpose<perm=[1, 0]>(table)
    logits = MatMul(h, turned)
}
"""
_SHAPES = {"table": (5000, 64), "wq": (64, 64), "wk": (64, 32), "wv": (64, 32), "bv": (32,), "wo": (64, 64)} | {
    "wg": (64, 48),
    "wu": (64, 48),
    "wd": (48, 64),
    "shift": (64,),
}
_ACTIVATIONS = ["n", "mixed", "m", "gated", "h"]


def layer(old: str = "", new: str = "") -> ir.Model:
    """Its norms make some channels a hundred times as large as others; ``new`` text in place of the ``old``."""
    assert old in _LAYER
    return canonicalize(parsed(_LAYER.replace(old, new) if old else _LAYER, weights()))


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    found = {n: random.normal(0, 0.03 if n in ("wq", "wk") else 0.3, shape) for n, shape in _SHAPES.items()}
    return found | {name: np.exp(random.normal(0, 1.5, 64)) for name in ("gain", "gain2", "gain3")}


def told(model: ir.Model) -> str:
    """How many activations the pass divides."""
    (remark,) = even_channels(model, sizes(model, {}))
    return remark.reason.split()[0]


def run_all(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**run_model(model)(feeds), **run_model(expose(model, _ACTIVATIONS))(feeds)}


def ids() -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(0).integers(0, 5000, (20, 9))}


def test_results_stay_and_channels_even_out() -> None:
    model, feeds = layer(), ids()
    before = run_all(model, feeds)
    assert told(model) == "5"
    after = run_all(model, feeds)
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-4, atol=1e-3)
    for name in _ACTIVATIONS:
        spread = [np.ptp(np.log(np.abs(found[name]).mean(axis=(0, 1)))) for found in (before, after)]
        assert spread[1] < 0.9 * spread[0], name


def test_a_tied_table_stays_one() -> None:
    model = layer()
    even_channels(model, sizes(model, {}))
    (table,) = (v for v in model.graph.initializers.values() if v.shape == [5000, 64])
    assert sorted(user.op_type for user, _ in table.uses()) == ["Gather", "Transpose"]


@pytest.mark.parametrize("precision", ["int8-weights", "int4"])
def test_codes_come_nearer(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = layer(), ids()
    exact = run_model(model)(feeds)["logits"]

    def off() -> float:
        steps = [step for step in pipeline.passes(target("cpu", precision), precision) if step.lossy]
        return float(np.square(run_model(pipeline.run(model.clone(), steps).model)(feeds)["logits"] - exact).mean())

    with_it = off()
    monkeypatch.setattr(pipeline, "even_channels", lambda model, known, heads: [])
    assert with_it < 0.8 * off()


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("d = MatMul(gated, wd)", "d0 = MatMul(gated, wd) d = Add(d0, m)", "4"),  # post-norm's residual
        ("float[B,S,5000] logits", "float[B,S,5000] logits, float[B,S,64] h", "4"),
        ("MatMul(mixed, wo)", "MatMul(mixed, wq)", "3"),  # weights that two products share
        ("n = LayerNormalization<axis=-1>(x, gain, shift)", "n = Relu(x)", "4"),
    ],
)
def test_what_cannot_be_divided_stays(old: str, new: str, left: str) -> None:
    model, feeds = layer(old, new), ids()
    before = run_model(model)(feeds)["logits"]
    assert told(model) == left
    np.testing.assert_allclose(run_model(model)(feeds)["logits"], before, rtol=1e-4, atol=1e-3)


def test_an_encoder_keeps_the_residuals_of_its_norms() -> None:
    lifted = pipeline.run(canonicalize(encoder()), pipeline.lifting()).model
    assert told(lifted) == "1"  # what attention mixes


def test_values_that_are_handed_on_stay() -> None:
    """A model that is split has one cache for two precisions."""
    presents = "(float[B,S,5000] logits, float[B,2,S,16] k1, float[B,2,S,16] v1)"
    text = _LAYER.replace("(float[B,S,5000] logits)", presents).replace("mixed = Att", "mixed, k1, v1 = Att")
    assert told(canonicalize(parsed(text, weights()))) == "4"


def test_a_bias_behind_attention_leaves_its_values() -> None:
    """It has a channel for each of the queries' heads, the values have half as many."""
    model, feeds = layer("o = MatMul(mixed, wo)", "more = Add(mixed, shift) o = MatMul(more, wo)"), ids()
    before = run_model(model)(feeds)["logits"]
    assert told(model) == "4"
    np.testing.assert_allclose(run_model(model)(feeds)["logits"], before, rtol=1e-4, atol=1e-3)


def test_dead_channels_do_no_harm() -> None:
    model, feeds = layer(), ids()
    known = {name: np.where(np.arange(len(x)) % 3 == 0, 0, x) for name, x in sizes(model, {}).items()}
    before = run_model(model)(feeds)["logits"]
    (remark,) = even_channels(model, known | {"m": np.zeros(64)})
    assert remark.reason.startswith("4 ")
    np.testing.assert_allclose(run_model(model)(feeds)["logits"], before, rtol=1e-4, atol=1e-3)
