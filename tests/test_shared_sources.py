"""Rows that read one source share its keys and values, and read what they would have read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.cache.record import Cache, Cross, record
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.lower.sources import shared_sources
from onnxsmith.runtime.model import LoadedModel
from tests.generation import compiled, ours, rows_of
from tests.spoiling import check_seen
from tests.toy import parsed

NEW = 10
MODELS = ("t5", "bart", "marian")


def held(model: LoadedModel) -> int:
    """How many sources there are keys and values of."""
    source = model.generation._generator._decoder.source
    assert source is not None
    return len(source._held)


@pytest.mark.parametrize("name", MODELS)
def test_beams_of_a_text(name: str) -> None:
    """What they generate is compared with the library's in test_generation_reference.py."""
    model = compiled(name)
    found = model.generate(rows_of((9, 5, 1)), num_beams=4, max_new_tokens=NEW, eos_token_id=[])
    assert held(model) == 3
    one = model.generate(rows_of((9,)), num_beams=4, max_new_tokens=NEW, eos_token_id=[])
    assert held(model) == 1 and found.timing.bytes > one.timing.bytes


@pytest.mark.parametrize("name", MODELS)
def test_samples_that_end_at_different_times(name: str) -> None:
    """As many of each text share, and those that are left later do not."""
    settings = {"do_sample": True, "temperature": 1.5, "seed": 3, "num_return_sequences": 3, "max_new_tokens": 24}
    found = [model.generate(rows_of((9, 5)), **settings).sequences for model in (compiled(name), ours(name))]
    assert found[0] == found[1]
    assert len({len(row) for row in found[0]}) > 1


def test_rows_and_their_sources() -> None:
    source = compiled("t5").generation._generator._decoder.source
    assert source is not None
    source.read(rows_of((4, 3, 2)))
    moves = ([0, 0, 1, 1, 2, 2], [1, 0, 3, 3, 4, 4], [0, 1, 2, 3], [0, 2, 3], [1, 2])
    held = []
    for rows in moves:
        source.select(np.array(rows))
        held.append(source._held.tolist())
    assert held == [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 1], [1]]
    assert source._mask.tolist() == [[1, 1, 1, 0]]


GRAPH = """
<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
g (int64[B,S] ids, int64[B,R] mask, float[B,2,R,8] k, float[B,2,R,8] v) => (float[B,S,16] y)
<int64[1] one = {{1}}, int64[2] middle = {{1, 2}}, int64[2] ends = {{1, 3}}, float[B,S,16] z>
{{
    q = Gather(table, ids)
    seen = Cast<to=1>(mask)
    four = Unsqueeze(seen, middle)
    length = Shape<start=1, end=2>(ids)
    shape = Concat<axis=0>(one, one, length, one)
    wide = Expand(four, shape)
    {bias}
    z = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, , , bias)
    {last}
}}
"""


def toy(**changes: str) -> ir.Model:
    text = GRAPH.format(**{"bias": "bias = Identity(wide)", "last": "y = Add(z, z)"} | changes)
    weights = {"table": np.random.default_rng(0).normal(size=(60, 16))}
    model = canonicalize(parsed(text, weights))
    cross = Cross(["k", "v"], ["k", "v"], ["source_ids", "source_mask"], "mask")
    record(model, Cache(1, 2, 8, "float32", "ids", "own_mask", None, [], [], "y", True, None, cross=cross))
    return model


def test_it_computes_the_same() -> None:
    model, apart = toy(), toy()
    assert [remark.rule for remark in shared_sources(model)] == ["shared-sources"]
    cache = recorded(model)
    assert cache is not None and cache.cross is not None and cache.cross.shared
    random = np.random.default_rng(0)
    k, v = random.normal(size=(2, 3, 2, 5, 8)).astype(np.float32)
    mask = (np.arange(5) < [[5], [3], [1]]).astype(np.int64)
    for rows in (1, 4):
        feeds = {"ids": random.integers(6, 60, (3 * rows, 2))}
        of_each = {name: np.repeat(x, rows, 0) for name, x in (("mask", mask), ("k", k), ("v", v))}
        expected = run_model(apart)({**feeds, **of_each})["y"]
        for given in (of_each, {"mask": mask, "k": k, "v": v}):
            np.testing.assert_allclose(run_model(model)({**feeds, **given})["y"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": "own = Cast<to=1>(ids)\nlast = Unsqueeze(own, ends)\nbias = Add(wide, last)"},
        {"last": "other = ReduceSum<keepdims=1>(seen, one)\nfar = Unsqueeze(other, one)\ny = Add(z, far)"},
        {"last": "flat = ReduceMean<keepdims=0>(k)\ny = Add(z, flat)"},
    ],
    ids=["a bias of each token", "the mask elsewhere", "the keys elsewhere"],
)
def test_rows_stay_apart(changes: dict[str, str]) -> None:
    model = toy(**changes)
    assert shared_sources(model) == []
    cache = recorded(model)
    assert cache is not None and cache.cross is not None and not cache.cross.shared


def test_verification_sees_a_wrong_source() -> None:
    folder = compiled("t5").artifact.folder
    assert folder is not None
    model = load_model(folder / "model.onnx")
    cache = recorded(model)
    assert cache is not None and cache.cross is not None and cache.cross.shared
    source: dict[str, np.ndarray] = {str(cache.cross.mask): np.ones((2, 3), np.int64)}
    random = np.random.default_rng(0)
    for v in model.graph.inputs:
        if v.name in cache.cross.past:
            source[v.name] = random.normal(size=(2, v.shape[1], 3, v.shape[3])).astype(np.float32)
    ids, keys = cache.ids, cache.cross.past[0]
    check_seen(
        model,
        lambda feeds, found: (
            {**found, "logits": np.roll(found["logits"], 1, axis=0)} if len(feeds[ids]) != len(feeds[keys]) else found
        ),
        source,
    )
