"""The user's own inputs: how they are split, what does not fit, and what they fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.calibrate import activations
from onnxsmith.compiler.closeness import check_closeness
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.samples import split
from onnxsmith.compiler.target import target
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.quantize.activation import calibrated
from onnxsmith.passes.quantize.excess import Grid
from onnxsmith.runtime.artifact import Artifact, open_artifact
from tests.embedder import TEXTS, write_embedder
from tests.toy import VOCABULARY, encoder, parsed

PLAIN = Artifact(Path("model.onnx"))


def ids(batch: int = 6, length: int = 7, **changed: Any) -> dict[str, np.ndarray]:
    """Arrays for the encoder; ``changed`` ones replace them."""
    drawn = np.random.default_rng(0).integers(0, VOCABULARY, (batch, length))
    return {"input_ids": drawn, "attention_mask": np.ones_like(drawn)} | changed


class TestArrays:
    def test_half_of_them_judge(self) -> None:
        samples = split(ids(batch=40), encoder(), PLAIN)
        sizes = [len(case.feeds["input_ids"]) for case in (*samples.calibrating, *samples.judging)]
        assert sizes == [8, 8, 8, 8, 8]
        together = np.concatenate([c.feeds["input_ids"] for c in (*samples.calibrating, *samples.judging)])
        assert sorted(together.tolist()) == sorted(ids(batch=40)["input_ids"].tolist())

    def test_two_are_enough(self) -> None:
        samples = split(ids(batch=2), encoder(), PLAIN)
        assert len(samples.calibrating) == len(samples.judging) == 1

    def test_rows_without_a_key_are_not_judged(self) -> None:
        mask = np.ones((2, 7), np.int64)
        mask[1] = 0
        (case,) = split(ids(batch=2, attention_mask=mask), encoder(), PLAIN).judging
        assert case.rows.tolist() == [False]

    @pytest.mark.parametrize(
        ("arrays", "why"),
        [
            (ids(batch=1), "2 samples or more"),
            ({}, "missing input input_ids, attention_mask"),
            (ids(position_ids=np.zeros((6, 7), np.int64)), "unknown input position_ids"),
            (ids(attention_mask=np.ones((6, 9), np.int64)), "expected sequence of 7"),
            (ids(attention_mask=np.ones((4, 7), np.int64)), "expected batch of"),
            (ids(attention_mask=np.ones(6, np.int64)), "expected 2 axes"),
            (ids(attention_mask=np.ones((6, 7), np.float32)), "expected dtype int64"),
            (ids(input_ids=np.full((6, 7), VOCABULARY)), "sample 0: ONNX Runtime fails on it"),
        ],
    )
    def test_what_does_not_fit(self, arrays: dict[str, np.ndarray], why: str) -> None:
        with pytest.raises(BadInput, match=why) as caught:
            split(arrays, encoder(), PLAIN)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_numbers_must_be_finite(self, bad: float) -> None:
        model = parsed('<ir_version: 10, opset_import: ["" : 23]> g (float[B, 3] x) => (float[B, 3] y) { y = Relu(x) }')
        x = np.ones((4, 3), np.float32)
        x[1, 1] = bad
        with pytest.raises(BadInput, match="sample input x: expected finite numbers"):
            split({"x": x}, model, PLAIN)

    def test_a_fixed_batch_is_kept(self) -> None:
        model = parsed('<ir_version: 10, opset_import: ["" : 23]> g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }')
        samples = split({"x": np.ones((6, 3), np.float32)}, model, PLAIN)
        assert {case.feeds["x"].shape for case in samples.calibrating} == {(2, 3)}
        with pytest.raises(BadInput, match="expected size 2, found 1"):
            split({"x": np.ones((5, 3), np.float32)}, model, PLAIN)


class TestTexts:
    def test_no_position_is_padding(self, tmp_path: Path) -> None:
        folder = write_embedder(tmp_path / "model")
        samples = split(TEXTS, load_model(folder), open_artifact(folder))
        cases = [*samples.calibrating, *samples.judging]
        assert sum(len(case.feeds["input_ids"]) for case in cases) == len(TEXTS)
        assert all(case.feeds["attention_mask"].all() for case in cases)

    def test_without_a_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="no tokenizer beside this model; give it arrays"):
            split(TEXTS, encoder(), PLAIN)

    def test_an_input_that_no_text_gives(self, tmp_path: Path) -> None:
        folder = write_embedder(tmp_path / "model")
        model = load_model(folder)
        model.graph.inputs[1].name = "lengths"
        with pytest.raises(BadInput, match=r"no text gives the input lengths; give arrays \(.npz\)"):
            split(TEXTS, model, open_artifact(folder))


class TestFixedScales:
    def test_a_range_that_inputs_share_is_fixed(self) -> None:
        found = calibrated(np.full((5, 4), -1.0), np.full((5, 4), 3.0), fixed=True)
        assert found.span == (-1, 3)
        assert found.grid() == Grid(np.float32(4 / 255), np.uint8(64))

    def test_a_range_of_one_input_alone_is_not(self) -> None:
        highs = np.ones((5, 4))
        highs[2] = 10
        assert calibrated(-np.ones((5, 4)), highs, fixed=True).span is None

    def test_one_input_fixes_nothing_and_two_must_agree(self) -> None:
        assert calibrated(-np.ones((1, 4)), np.ones((1, 4)), fixed=True).span is None
        for higher, fixed in ((1.2, True), (1.8, False)):
            highs = np.stack([np.ones(4), np.full(4, higher)])
            assert (calibrated(-np.ones((2, 4)), highs, fixed=True).span is not None) == fixed

    def test_nor_is_a_dead_activation(self) -> None:
        assert calibrated(np.zeros((5, 4)), np.zeros((5, 4)), fixed=True).grid() is None

    def test_the_span_is_that_of_the_smoothed_channels(self) -> None:
        highs = np.ones((3, 8))
        highs[:, 5] = 40
        found = calibrated(-np.ones((3, 8)), highs, fixed=True)
        assert found.factor is not None and found.span == (-1, 4)

    def test_made_up_inputs_fix_nothing(self) -> None:
        model = pipeline.run(canonicalize(encoder()), pipeline.passes(target("cpu", "fp32"), "fp32")).model
        assert all(found.span is None for found in activations(model, {}).values())

    def test_static_int8_stays_close(self) -> None:
        samples = split(ids(batch=32), encoder(), PLAIN)
        steps = pipeline.passes(target("cpu", "int8"), "int8", samples=samples.calibrating)
        outcome = pipeline.run(canonicalize(encoder()), steps)
        assert "QuantizeLinear" in {n.op_type for n in outcome.model.graph}
        found = check_closeness(encoder(), outcome.model, samples.judging, {})[0]
        assert found.mean_cosine > 0.999 and found.smallest_cosine > 0.99  # as with scales of its own


def test_saturating_machines_get_weights_of_7_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "saturates", lambda: True)
    outcome = pipeline.run(canonicalize(encoder()), pipeline.passes(target("cpu", "int8"), "int8"))
    codes = [v.const_value.numpy() for v in outcome.model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert {int(np.abs(code).max()) for code in codes} == {64}
    assert "saturate on this machine" in " ".join(r.reason for r in outcome.remarks if r.kind == "analysis")


@pytest.mark.parametrize("given", [{"calibrate": TEXTS}, {"calibrate": ids()}])
def test_float32_is_not_calibrated(tmp_path: Path, given: dict[str, Any]) -> None:
    ir.save(encoder(), tmp_path / "model.onnx")
    with pytest.raises(BadUsage, match="for lossy precisions"):
        onnxsmith.optimize(tmp_path / "model.onnx", None, **given)
