"""Tuning: what is compared, what is remembered, and what `optimize` makes of it. Nothing here depends on real times."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler import alternatives, pipeline, tuned
from onnxsmith.compiler.artifact import write_artifact
from onnxsmith.compiler.machine import this_machine
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.compiler.tune import OPTIONS, tune
from onnxsmith.compiler.tune_report import TuneReport
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes import lower
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.measure import Ratio, Run
from tests.command import Invoke, assert_refused
from tests.toy import encoder, parsed

SIZES = {"batch": [2], "sequence": [5, 9]}
PRODUCT = "com.microsoft.MatMulIntegerToFloat"
SKIP = "com.microsoft.SkipLayerNormalization"
FASTER, SLOWER, LEVEL = (0.5, 0.4, 0.6), (2.0, 1.9, 2.1), (1.0, 0.9, 1.1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tuned.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "encoder"
    write_artifact(path, encoder(), {"format": 1, "bounds": {"sequence": 64}})
    return path


@dataclass
class Stopwatch:
    """A measure that says of each operator or option what it is told, and that all others are level."""

    says: Mapping[str, tuple[float, float, float]]
    now: str = ""
    seen: Counter[str] = field(default_factory=Counter)

    def progress(self, done: int, total: int, what: str) -> None:
        assert done <= total
        self.now = what

    def measure(self, run_a: Run, run_b: Run, seconds: float) -> Ratio:
        run_a()
        run_b()
        self.seen[self.now] += 1
        ratio, low, high = self.says.get(self.now, LEVEL)
        return Ratio(ratio, low, high, 1.0, 1.0, 1.0, ratio)

    def tune(self, source: Path, precision: str = "fp32") -> TuneReport:
        return tune(source, SIZES, precision=precision, measure=self.measure, progress=self.progress)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path / "model.onnx", load_external_data=False).graph.node)


def optimized(source: Path, output: Path, **options: bool) -> Counter[str]:
    onnxsmith.optimize(source, output, verify="off", **options)
    return operators(output)


class TestUse:
    def test_a_faster_operator_is_taken_and_recorded(self, source: Path, tmp_path: Path) -> None:
        assert optimized(source, tmp_path / "before")["SkipLayerNormalization"] == 0
        Stopwatch({SKIP: FASTER}).tune(source)
        report = onnxsmith.optimize(source, tmp_path / "after")
        assert operators(tmp_path / "after")["SkipLayerNormalization"] == 2
        assert report.parity is not None and report.parity.fine
        recorded = json.loads((tmp_path / "after" / "onnxsmith.json").read_text())["tuned"]
        assert recorded["machine"]["onnxruntime"] == this_machine().onnxruntime
        assert {k["operator"] for k in recorded["kernels"]} == {SKIP}
        assert all(k["chosen"] and k["ratio"] == 0.5 for k in recorded["kernels"])
        assert "kernel choices" in next(r.reason for r in report.remarks if r.rule == "tuned")

    def test_a_slower_operator_is_left_though_the_table_wants_it(self, tmp_path: Path) -> None:
        path = tmp_path / "silu"
        write_artifact(path, silu(), {"format": 1})
        assert optimized(path, tmp_path / "before")["QuickGelu"] == 1
        Stopwatch({"com.microsoft.QuickGelu": SLOWER}).tune(path)
        assert optimized(path, tmp_path / "after")["QuickGelu"] == 0
        assert not json.loads((tmp_path / "after" / "onnxsmith.json").read_text())["tuned"]["kernels"][0]["chosen"]

    def test_without_tuning_or_a_difference_the_table_decides(self, source: Path, tmp_path: Path) -> None:
        Stopwatch({SKIP: FASTER}).tune(source)
        assert optimized(source, tmp_path / "asked", tuned=False)["SkipLayerNormalization"] == 0
        Stopwatch({}).tune(source)  # level: newer results take the place of older ones
        assert optimized(source, tmp_path / "level")["SkipLayerNormalization"] == 0
        assert "tuned" not in json.loads((tmp_path / "level" / "onnxsmith.json").read_text())

    def test_another_thread_count_is_another_machine(self, source: Path, tmp_path: Path) -> None:
        watch = Stopwatch({SKIP: FASTER})
        tune(source, SIZES, threads=7, measure=watch.measure, progress=watch.progress)
        assert optimized(source, tmp_path / "default")["SkipLayerNormalization"] == 0
        onnxsmith.optimize(source, tmp_path / "seven", verify="off", threads=7)
        assert operators(tmp_path / "seven")["SkipLayerNormalization"] == 2

    def test_winners_that_lose_as_a_whole_are_not_kept(self, source: Path, tmp_path: Path) -> None:
        report = Stopwatch({SKIP: FASTER, "the whole model": SLOWER}).tune(source)
        assert not report.kept
        assert optimized(source, tmp_path / "after")["SkipLayerNormalization"] == 0

    def test_session_options_travel_with_the_artifact(self, source: Path, tmp_path: Path) -> None:
        key, value = OPTIONS[0]
        assert Stopwatch({key: FASTER}).tune(source).session == {key: value}
        onnxsmith.optimize(source, tmp_path / "after", verify="off")
        manifest = json.loads((tmp_path / "after" / "onnxsmith.json").read_text())
        assert manifest["session"]["config"][key] == manifest["tuned"]["session"][key] == value
        assert onnxsmith.load(tmp_path / "after").config[key] == value

    def test_a_product_that_is_slower_in_integers_stays(self, source: Path, tmp_path: Path) -> None:
        onnxsmith.optimize(source, tmp_path / "before", precision="int8", verify="off")
        assert operators(tmp_path / "before")["MatMulIntegerToFloat"] == 6
        report = Stopwatch({PRODUCT: SLOWER}).tune(source, "int8")
        assert sum(f.count for f in report.findings if f.operator == PRODUCT) == 6
        onnxsmith.optimize(source, tmp_path / "after", precision="int8", verify="off")
        assert operators(tmp_path / "after")["MatMulIntegerToFloat"] == 0

    def test_options_belong_to_the_architecture(self, source: Path, tmp_path: Path) -> None:
        Stopwatch({OPTIONS[0][0]: FASTER}).tune(source)
        write_artifact(tmp_path / "silu", silu(), {"format": 1})
        onnxsmith.optimize(tmp_path / "silu", tmp_path / "after", verify="off")
        assert OPTIONS[0][0] not in onnxsmith.load(tmp_path / "after").config

    def test_a_corrupt_file_is_passed_over_with_a_word(self, source: Path, tmp_path: Path) -> None:
        path = Stopwatch({SKIP: FASTER}).tune(source).path
        path.write_text("{")
        report = onnxsmith.optimize(source, tmp_path / "after", verify="off")
        assert operators(tmp_path / "after")["SkipLayerNormalization"] == 0
        assert any(str(path) in r.reason and "passed over" in r.reason for r in report.remarks)


def silu() -> ir.Model:
    return parsed("""
<ir_version: 10, opset_import: ["" : 23]>
gate (float[batch, sequence, 8] x) => (float[batch, sequence, 8] y)
{
    s = Sigmoid(x)
    y = Mul(x, s)
}""")


class TestReport:
    def test_every_alternative_is_measured_at_every_size(self, source: Path) -> None:
        watch = Stopwatch({})
        report = watch.tune(source)
        assert all(len(f.timings) == 2 for f in report.findings)
        assert watch.seen[SKIP] == 2 * sum(f.operator == SKIP for f in report.findings)
        assert {key for key, _ in OPTIONS} <= watch.seen.keys()
        assert report.whole is None and report.kept  # the winners are the table's

    def test_winners(self, source: Path) -> None:
        report = Stopwatch({SKIP: FASTER, "com.microsoft.MultiHeadAttention": SLOWER}).tune(source)
        winners = {f.operator: f.winner for f in report.findings}
        assert winners[SKIP] == SKIP
        assert winners["com.microsoft.MultiHeadAttention"] == "as it is"
        assert report.whole is not None and report.to_json()["kept"]

    def test_json_is_plain(self, source: Path) -> None:
        found = json.loads(json.dumps(Stopwatch({SKIP: FASTER}).tune(source).to_json()))
        assert found["sites"][0]["timings"][0]["sizes"] == {"batch": 2, "sequence": 5}


@pytest.fixture(scope="module")
def found() -> list[alternatives.Alternative]:
    lifted = pipeline.run(canonicalize(encoder()), pipeline.before_lowering()).model
    kernels = target("cpu", "fp32").kernels
    assert kernels is not None
    return alternatives.find(lifted, lower.rules, kernels)


class TestAlternatives:
    def test_are_those_that_lowering_could_take(self, found: list[alternatives.Alternative]) -> None:
        assert {a.operator.rpartition(".")[2] for a in found} >= {"SkipLayerNormalization", "MultiHeadAttention"}

    def test_compute_the_same(self, found: list[alternatives.Alternative]) -> None:
        kernels = target("cpu", "fp32").kernels
        assert kernels is not None
        for alternative in found:
            models = alternative.models(lower.rules, kernels)
            feeds = alternatives.feeds(alternative.region, {"batch": 2, "sequence": 5})
            assert models is not None and feeds is not None
            before, after = (run_model(model)(feeds) for model in models)
            assert [n.op_type for n in models[0].graph] != [n.op_type for n in models[1].graph]
            for name, value in after.items():
                np.testing.assert_allclose(value, before[name], rtol=1e-4, atol=1e-5)

    def test_inputs_of_unknown_sizes_are_not_made_up(self, found: list[alternatives.Alternative]) -> None:
        assert alternatives.feeds(found[0].region, {"batch": 2}) is None


class TestRefusals:
    def test_a_size_that_the_model_does_not_run_at(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "encoder", encoder(), {"format": 1})
        with pytest.raises(BadInput, match="does not run at batch=1, sequence=65"):
            tune(tmp_path / "encoder", {"batch": [1], "sequence": [65]}, measure=Stopwatch({}).measure)

    def test_a_model_without_sites(self, tmp_path: Path) -> None:
        model = parsed('<ir_version: 10, opset_import: ["" : 23]> g (float[N] x) => (float[N] y) { y = Neg(x) }')
        write_artifact(tmp_path / "neg", model, {"format": 1})
        with pytest.raises(BadInput, match="no site where kernels could be chosen"):
            tune(tmp_path / "neg", {"N": [1]})

    def test_a_precision_that_is_not_measured(self, source: Path) -> None:
        with pytest.raises(BadUsage, match="no 'int4'; choose one of fp32, int8"):
            tune(source, SIZES, precision="int4")


class TestCommand:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        watch = Stopwatch({SKIP: FASTER})

        def quickly(source: Path, shapes: Mapping[str, tuple[int, ...]], **options: object) -> TuneReport:
            return tune(source, shapes, measure=watch.measure, progress=watch.progress)

        monkeypatch.setattr("onnxsmith.tune", quickly, raising=False)
        yield

    def test_table(self, invoke: Invoke, source: Path) -> None:
        result = invoke("tune", source, "--shapes", "batch=1", "sequence=4,8")
        assert result.code == 0, result.err
        assert SKIP in result.out and "batch=1, sequence=8" in result.out and "50%" in result.out
        assert "the whole model by the winners" in result.out and "wrote " in result.err

    def test_json(self, invoke: Invoke, source: Path) -> None:
        result = invoke("tune", source, "--shapes", "batch=1", "--shapes", "sequence=4", "--json")
        assert result.code == 0, result.err
        assert {site["winner"] for site in json.loads(result.out)["sites"]} == {SKIP, "the table's choice"}

    @pytest.mark.parametrize(
        "shapes", [["batch"], ["batch="], ["batch=0"], ["batch=x"], ["=1"], ["batch=1", "batch=2"]]
    )
    def test_shapes_that_are_none(self, invoke: Invoke, source: Path, shapes: list[str]) -> None:
        result = invoke("tune", source, "--shapes", *shapes)
        assert (result.code, len(result.err.splitlines())) == (2, 1) and "--shapes" in result.err

    def test_beyond_the_positions(self, invoke: Invoke, source: Path) -> None:
        assert_refused(invoke("tune", source, "--shapes", "batch=1", "sequence=4096"), "4096", "64 positions")

    def test_a_dimension_that_the_model_lacks(self, invoke: Invoke, source: Path) -> None:
        result = invoke("tune", source, "--shapes", "batch=1", "sequence=8", "width=4")
        assert result.code == 2 and "'width'" in result.err and "batch, sequence" in result.err
