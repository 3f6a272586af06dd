"""Comparing variants: what differs is found, what cannot be compared is refused. No test asserts a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import onnxsmith
from onnxsmith.compiler.compare.inputs import mask_names, synthesize
from onnxsmith.compiler.compare.numerics import output_parity, search_agreement
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.feeds import TensorInfo
from onnxsmith.runtime.model import load
from tests.embedder import TEXTS, WORDS, embedder_model, write_embedder
from tests.tiny import write_mlp

INPUTS = [TensorInfo(name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask")]
GRAPH = ir.from_proto(embedder_model())


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_embedder(tmp_path / "reference", precision="fp32")


def test_a_copy_is_equal(tmp_path: Path, reference: Path) -> None:
    comparison = onnxsmith.compare([reference, write_embedder(tmp_path / "copy")], texts=TEXTS, pairs=2, quick=True)
    first, copy = comparison.variants
    assert first is comparison.reference
    assert (first.latency, first.parity, first.search) == (None, (), None)
    assert [(p.output, p.relative_rms, p.largest) for p in copy.parity] == [
        ("hidden", 0, 0),
        ("embeddings", 0, 0),
    ]
    assert copy.search is not None
    assert (copy.search.queries, copy.search.top1) == (len(TEXTS), 1)
    assert copy.latency is not None
    assert copy.latency_ms == pytest.approx(copy.latency.b_ms)
    assert first.latency_ms == pytest.approx(copy.latency.a_ms)
    assert comparison.shapes == {"input_ids": (1, 16), "attention_mask": (1, 16)}  # 128, cut at the bound


def test_a_disturbed_model_is_measured(tmp_path: Path, reference: Path) -> None:
    noise = 0.01
    other = write_embedder(tmp_path / "other", embedder_model(noise=noise), precision="int8")
    variant = onnxsmith.compare([reference, other], shapes={"batch": 3, "sequence": 13}, pairs=1, quick=True).variants[
        1
    ]
    hidden = variant.parity[0]
    assert variant.precision == "int8"
    assert noise / 2 < hidden.relative_rms < noise * 2
    assert 0.99 < hidden.min_cosine < 0.99999
    assert hidden.largest > hidden.relative_rms


def test_structure(tmp_path: Path, reference: Path) -> None:
    plain = write_mlp(tmp_path / "m.onnx", location="weights")
    (tmp_path / "weights").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    mlp = onnxsmith.compare([plain, plain], shapes={"N": 5}, pairs=1, quick=True).reference
    assert mlp.structure is not None
    assert mlp.structure.size == plain.stat().st_size + 64
    assert (mlp.structure.nodes, mlp.structure.operators) == (1, {"MatMul": 1})
    structure = onnxsmith.compare([reference, reference], pairs=1, quick=True).reference.structure
    assert structure is not None
    assert structure.size == (reference / "model.onnx").stat().st_size
    assert list(structure.operators)[:2] == ["Constant", "ReduceSum"]
    assert structure.nodes == sum(structure.operators.values()) == 9


def test_sessions_say_how_they_were_opened(tmp_path: Path, reference: Path) -> None:
    option = {"optimization.disable_specified_optimizers": "GeluFusion"}
    other = write_embedder(tmp_path / "other", session={"config": option})
    variants = onnxsmith.compare([reference, other], pairs=1, quick=True).variants
    assert [variant.session for variant in variants] == [
        "ORT_ENABLE_ALL",
        "ORT_ENABLE_ALL, optimization.disable_specified_optimizers=GeluFusion",
    ]


def test_a_peer_is_a_column_too(reference: Path) -> None:
    model = load(reference)

    def peer(feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        return {name: 2 * array for name, array in model.run(feeds).items()}

    comparison = onnxsmith.compare([reference], peers={"twice": peer}, texts=TEXTS, pairs=1, quick=True)
    twice = comparison.variants[1]
    assert (twice.name, twice.structure, twice.session) == ("twice", None, None)
    assert twice.parity[0].relative_rms == pytest.approx(1)
    assert twice.search is not None
    assert (twice.search.top1, twice.search.min_cosine) == (1, pytest.approx(1))
    with pytest.raises(BadInput, match="no output embeddings, hidden, which the reference has"):
        onnxsmith.compare([reference], peers={"nothing": lambda feeds: {}}, pairs=1, quick=True)


def test_given_inputs_are_used(reference: Path) -> None:
    feeds = {"input_ids": np.full((2, 3), 4), "attention_mask": np.ones((2, 3), np.int64)}
    assert onnxsmith.compare([reference, reference], inputs=feeds, pairs=1, quick=True).shapes == dict.fromkeys(
        feeds, (2, 3)
    )


def test_json_is_plain(tmp_path: Path, reference: Path) -> None:
    broken = write_embedder(tmp_path / "broken", embedder_model(noise=float("inf")))
    text = json.dumps(onnxsmith.compare([reference, broken], pairs=1, quick=True).to_json(), allow_nan=False)
    data = json.loads(text)
    assert data["variants"][1]["parity"][0]["relative_rms"] is None
    assert data["variants"][1]["parity"][0]["min_cosine"] == -1
    assert set(data) == {*("format", "variants", "shapes", "provider", "threads", "pairs", "pareto", "roofs", "note")}


def test_names_that_differ_are_refused(tmp_path: Path, reference: Path) -> None:
    other = write_embedder(tmp_path / "a", embedder_model(rename={"attention_mask": "mask"}))
    with pytest.raises(BadInput, match=r"expected inputs \['attention_mask', 'input_ids'\] as in the reference"):
        onnxsmith.compare([reference, other], pairs=1, quick=True)
    other = write_embedder(tmp_path / "b", embedder_model(rename={"hidden": "tokens", "embeddings": "mean"}))
    with pytest.raises(BadInput, match=r"expected outputs \['embeddings', 'hidden'\] as in the reference"):
        onnxsmith.compare([reference, other], pairs=1)


def test_what_both_have_is_compared_and_names_can_be_mapped(tmp_path: Path, reference: Path) -> None:
    renamed = embedder_model(rename={"hidden": "tokens", "attention_mask": "mask"})
    other = write_embedder(tmp_path / "other", renamed)
    names = {"mask": "attention_mask"}
    variant = onnxsmith.compare([reference, other], pairs=1, quick=True, names=names).variants[1]
    assert [p.output for p in variant.parity] == ["embeddings"]
    names |= {"tokens": "hidden"}
    variant = onnxsmith.compare([reference, other], pairs=1, quick=True, names=names).variants[1]
    assert [(p.output, p.largest) for p in variant.parity] == [("hidden", 0), ("embeddings", 0)]
    assert variant.verdict is not None and variant.verdict.word == "identical"


def test_wrong_usage(reference: Path) -> None:
    with pytest.raises(BadUsage, match="two or more variants"):
        onnxsmith.compare([reference])
    with pytest.raises(BadUsage, match="unknown dimension sequnce in shapes; this model has batch, sequence"):
        onnxsmith.compare([reference, reference], shapes={"sequnce": 3})
    with pytest.raises(BadUsage, match="pairs must be at least 1"):
        onnxsmith.compare([reference, reference], pairs=0, quick=True)


def test_inputs_follow_from_the_graph() -> None:
    feeds = synthesize(GRAPH, INPUTS, {"batch": 3, "sequence": 200}, {})
    assert mask_names(GRAPH) == ["attention_mask"]
    assert feeds["input_ids"].min() == 0
    assert feeds["input_ids"].max() == len(WORDS) - 1
    assert feeds["attention_mask"].sum(axis=1).tolist() == [200, 150, 100]
    assert (np.diff(feeds["attention_mask"], axis=1) <= 0).all()
    assert all(array.dtype == np.int64 for array in feeds.values())


def test_dimensions_of_any_name_have_defaults() -> None:
    inputs = [TensorInfo(info.name, "int64", ("s0", None)) for info in INPUTS]
    assert synthesize(GRAPH, inputs, {}, {})["input_ids"].shape == (1, 128)
    assert synthesize(GRAPH, inputs, {"batch": 2, "sequence": 5}, {})["input_ids"].shape == (2, 5)
    with pytest.raises(BadInput, match="no size known for axis 2"):
        synthesize(GRAPH, [TensorInfo("input_ids", "int64", ("b", "s", "layers"))], {}, {})


def test_padding_does_not_count() -> None:
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((2, 4, 3))
    theirs, mask = ours.copy(), np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    theirs[mask == 0] = 99
    assert output_parity("y", ours, theirs, mask).relative_rms == 0
    assert output_parity("y", ours, theirs).relative_rms > 0.5


def test_parity_figures() -> None:
    theirs = np.array([[3.0, 4.0], [6.0, 8.0]])
    ours = np.array([[3.0, 4.0], [8.0, 6.0]])
    parity = output_parity("y", ours, theirs)
    assert parity.relative_rms == pytest.approx(np.sqrt(8 / 125))
    assert (parity.largest, parity.min_cosine) == (2, pytest.approx(0.96))


def test_equal_infinities_are_no_difference() -> None:
    theirs = np.array([[1.0, -np.inf]])
    assert output_parity("y", theirs.copy(), theirs).largest == 0
    assert output_parity("y", np.array([[1.0, np.nan]]), theirs).relative_rms == np.inf
    assert output_parity("y", np.zeros((1, 2)), theirs).min_cosine == -1


def test_scalars_zeros_and_integers() -> None:
    assert output_parity("y", np.float32(2), np.float32(2)).relative_rms == 0
    assert output_parity("y", np.zeros((2, 2)), np.zeros((2, 2))).relative_rms == 0
    assert output_parity("y", np.ones((2, 2)), np.zeros((2, 2))).relative_rms == np.inf
    assert output_parity("y", np.array([[2]]), np.array([[1]])).largest == 1
    with pytest.raises(BadInput, match=r"shapes \(2, 2\) and \(3, 2\) differ"):
        output_parity("y", np.zeros((3, 2)), np.zeros((2, 2)))


def test_search_agreement_counts_other_nearest_texts() -> None:
    theirs = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    ours = np.array([[1, 0], [1, 0.1], [0, 1], [1, -0.01]])  # the last text moves to the first ones
    agreement = search_agreement(ours, theirs)
    assert agreement.queries == 4
    assert agreement.top1 == 0.25  # only text 1 keeps its neighbour, text 0
    assert agreement.min_cosine == pytest.approx(0.09 / (np.hypot(0.1, 1) * np.hypot(1, 0.01)))
    with pytest.raises(BadInput, match="at least two texts, found 1"):
        search_agreement(ours[:1], theirs[:1])
