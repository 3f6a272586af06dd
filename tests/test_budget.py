"""Budgets: their syntax, what holds, the search that keeps them, and what is said when none can be kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import pipeline
from onnxsmith.compiler.budget import parse
from onnxsmith.compiler.closeness import Closeness, check_closeness, logits
from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.optimize import Verify
from onnxsmith.compiler.region import changed
from onnxsmith.compiler.sensitivity import Search
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.switch import PREFIX, switchable
from onnxsmith.compiler.target import target
from onnxsmith.errors import BadUsage, CheckFailed
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.parity import kl_divergence, top1
from tests.command import Invoke
from tests.toy import VOCABULARY, encoder, parsed

NEAR = Closeness("a", 0.98, 0.995, 0.05)
FAR = Closeness("b", 0.90, 0.97, 0.20, kl=0.02, top1=0.9, clear_top1=0.95)


def steps(precision: str) -> list[pipeline.Pass]:
    return pipeline.passes(target("cpu", precision), precision)


def saved(tmp_path: Path, model: ir.Model) -> Path:
    ir.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def _ending_in_a_product() -> ir.Model:
    text = """
    <ir_version: 10, opset_import: ["" : 23]>
    g (int64[batch, sequence] ids) => (float[batch, sequence, 48] scores)
    { hidden = Gather(table, ids)
      scores = MatMul(hidden, weight) }
    """
    rng = np.random.default_rng(0)
    return parsed(text, {"table": rng.standard_normal((40, 64)), "weight": rng.standard_normal((64, 48))})


class TestParse:
    def test_several(self) -> None:
        assert str(parse(" cosine=0.995, kl = 1e-2")) == "cosine=0.995,kl=0.01"

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "expected metric=number with a metric of cosine, least-cosine, rms, kl, top1, found ''"),
            ("cosine=0.9,", "found ''"),
            ("speed=3", "found 'speed=3'"),
            ("cosine", "expected a number after cosine=, found ''"),
            ("cosine=much", "found 'much'"),
            ("cosine=1.5", "expected a cosine from 0 to 1, found 1.5"),
            ("top1=97", "expected a top1 from 0 to 1, found 97"),
            ("rms=-1", "expected a rms of at least 0, found -1"),
            ("kl=inf", "found inf"),
            ("rms=nan", "found nan"),
            ("rms=0.1,rms=0.2", "names rms twice"),
        ],
    )
    def test_what_is_no_budget(self, text: str, why: str) -> None:
        with pytest.raises(BadUsage) as caught:
            parse(text)
        assert why in str(caught.value) and "\n" not in str(caught.value)


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "holds"),
        [
            ("cosine=0.97", True),
            ("cosine=0.98", False),
            ("least-cosine=0.9", True),
            ("least-cosine=0.91", False),
            ("rms=0.2", True),
            ("rms=0.19", False),
            ("kl=0.02", True),
            ("kl=0.01", False),
            ("top1=0.9", True),
            ("top1=0.91", False),
            ("cosine=0.9,rms=0.1", False),
        ],
    )
    def test_the_worst_output_counts(self, text: str, holds: bool) -> None:
        assert parse(text).holds([NEAR, FAR]) is holds

    def test_by_how_much_it_is_missed(self) -> None:
        assert parse("cosine=0.9,rms=0.1").shortfall([NEAR, FAR]) == "rms is 0.2 against 0.1, off by 0.1"

    def test_no_number_holds_nothing(self) -> None:
        assert not parse("cosine=0").holds([Closeness("a", math.nan, math.nan, math.nan)])

    def test_metrics_without_a_figure(self) -> None:
        assert parse("cosine=0.9,kl=1").lacking([NEAR]) == ["kl"]


class TestLogits:
    def test_divergence_and_agreement(self) -> None:
        own = np.log(np.array([[0.5, 0.25, 0.25], [0.4, 0.396, 0.204]]))
        other = np.log(np.array([[0.25, 0.5, 0.25], [0.4, 0.396, 0.204]]))
        np.testing.assert_allclose(
            kl_divergence(own, other + 7), [0.5 * math.log(2) - 0.25 * math.log(2), 0], atol=1e-12
        )
        same, lead = top1(own, other)
        assert same.tolist() == [False, True]
        np.testing.assert_allclose(lead, [0.25, 0.004])

    def test_an_impossible_class_adds_nothing(self) -> None:
        own = np.array([[0.0, -np.inf]])
        assert kl_divergence(own, np.zeros((1, 2))) == pytest.approx(math.log(2))

    def test_the_output_as_wide_as_the_table_of_tokens(self) -> None:
        model = _language_model()
        assert logits(model) == {"logits"}
        assert logits(encoder()) == set()
        (found,) = [c for c in check_closeness(model, model, list(cases(model)), {}) if c.output == "logits"]
        assert found.kl == pytest.approx(0, abs=1e-9) and found.top1 == found.clear_top1 == 1


class TestSwitch:
    @pytest.mark.parametrize("make", [encoder, _ending_in_a_product], ids=["inside", "at the end"])
    @pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4"])
    def test_every_choice_is_one_of_the_two(self, precision: str, make: Callable[[], ir.Model]) -> None:
        model = pipeline.run(canonicalize(make()), steps("fp32")).model
        after = model.clone()
        for lossy in (step for step in steps(precision) if step.lossy):
            after = lossy.run(after).model
        high, low = run_model(model), run_model(after)
        switched = after.clone()
        regions, name = changed(model, switched), str(model.graph.outputs[0].name)
        assert regions
        run = run_model(switchable(model, switched, regions))
        for case in list(cases(model))[:3]:
            for flag, expected in ((False, high), (True, low)):
                flags = {f"{PREFIX}{i}": np.array(flag) for i in range(len(regions))}
                np.testing.assert_array_equal(run({**case.feeds, **flags})[name], expected(case.feeds)[name])


class TestSearch:
    def searched(self, budget: str, precision: str = "int8") -> tuple[Search, pipeline.Outcome]:
        search = Search(parse(budget), list(cases(encoder())))
        return search, pipeline.run(canonicalize(encoder()), steps(precision), search)

    def test_a_loose_budget_takes_every_layer(self) -> None:
        search, outcome = self.searched("cosine=0.9")
        assert len(search.layers) == 4 and all(layer.taken for layer in search.layers)  # qkv, output, up, down
        assert "MatMul" not in {n.op_type for n in outcome.model.graph}

    def test_the_costliest_layers_are_left(self) -> None:
        search, outcome = self.searched("rms=0.006")
        costs = [layer.closeness[0].relative_rms for layer in search.layers]
        assert costs == sorted(costs, reverse=True)
        taken = [layer.taken for layer in search.layers]
        assert taken == sorted(taken) and 0 < sum(taken) < len(taken)
        found = check_closeness(encoder(), outcome.model, search.cases, {})
        assert search.budget.holds(found)
        spared = {r.node for r in outcome.remarks if r.code == "budget"}
        assert spared == {site.output for layer in search.layers if not layer.taken for site in layer.sites}
        assert not outcome.undone

    def test_what_four_bits_leave_may_have_eight(self) -> None:
        search, outcome = self.searched("cosine=0.9995", "int4")
        bits = [n.attributes["bits"].value for n in outcome.model.graph if n.op_type == "MatMulNBits"]
        assert 8 in bits
        assert {layer.precision for layer in search.layers} == {"int4", "int8-weights"}

    def test_a_metric_that_no_output_has(self) -> None:
        with pytest.raises(BadUsage, match="no output of the model is of logits, which kl is for"):
            self.searched("kl=0.1")


class TestOptimize:
    def test_layers_are_reported_and_recorded(self, tmp_path: Path) -> None:
        report = onnxsmith.optimize(saved(tmp_path, encoder()), tmp_path / "out", precision="int8", budget="rms=0.006")
        assert report.parity is not None and report.parity.closeness[0].relative_rms <= 0.006
        recorded = json.loads((tmp_path / "out" / "onnxsmith.json").read_text())["layers"]
        assert [entry["quantized"] for entry in recorded] == [layer.taken for layer in report.layers]
        assert {entry["quantized"] for entry in recorded} == {True, False}

    @pytest.mark.parametrize("verify", ["off", "final", "each"])
    def test_a_budget_that_cannot_be_met(self, tmp_path: Path, verify: Verify) -> None:
        with pytest.raises(CheckFailed, match=r"budget rms=1e-09 cannot be met: .* rms is .* off by"):
            onnxsmith.optimize(
                saved(tmp_path, encoder()), tmp_path / "out", precision="int8", budget="rms=1e-9", verify=verify
            )
        assert not (tmp_path / "out").exists()

    def test_float32_has_no_budget(self, tmp_path: Path) -> None:
        with pytest.raises(BadUsage, match="for lossy precisions"):
            onnxsmith.optimize(saved(tmp_path, encoder()), tmp_path / "out", budget="rms=1")


class TestCommand:
    def test_the_table_of_layers(self, invoke: Invoke, tmp_path: Path) -> None:
        data = tmp_path / "data.npz"
        drawn = np.random.default_rng(0).integers(0, VOCABULARY, (8, 7))
        np.savez(data, input_ids=drawn, attention_mask=np.ones_like(drawn))
        options = ("--precision", "int8", "--calibrate", str(data), "--budget", "cosine=0.99")
        result = invoke("optimize", str(saved(tmp_path, encoder())), "-o", str(tmp_path / "out"), *options)
        assert result.code == 0
        assert "what each layer alone costs" in result.out and "query_sum, key_product, value_product" in result.out

    @pytest.mark.parametrize(
        ("options", "code", "why"),
        [
            (("--budget", "speed=2"), 2, "metric of cosine"),
            (("--budget", "rms=1e-9"), 1, "cannot be met"),
            (("--calibrate", "missing.npz"), 3, "no such file"),
            (("--calibrate", "missing.txt"), 3, "no such file"),
        ],
    )
    def test_refused_in_one_line(
        self, invoke: Invoke, tmp_path: Path, options: tuple[str, ...], code: int, why: str
    ) -> None:
        source, output = saved(tmp_path, encoder()), tmp_path / "out"
        result = invoke("optimize", str(source), "-o", str(output), "--precision", "int8", *options)
        assert result.code == code and why in result.err and result.err.count("\n") == 1
        assert not output.exists()


def _language_model() -> ir.Model:
    text = """
    <ir_version: 10, opset_import: ["" : 23]>
    lm (int64[batch, sequence] ids) => (float[batch, sequence, 40] logits, float[batch, sequence, 8] hidden)
    { hidden = Gather(table, ids)
      turned = Transpose<perm=[1, 0]>(table)
      logits = MatMul(hidden, turned) }
    """
    return parsed(text, {"table": np.random.default_rng(0).standard_normal((40, 8))})
