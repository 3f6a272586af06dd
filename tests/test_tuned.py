"""What tuning rests on: sizes, shape classes, the store of results, and timing on a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxsmith.compiler import tuned
from onnxsmith.compiler.machine import Machine
from onnxsmith.compiler.target import target
from onnxsmith.compiler.timing import timed
from onnxsmith.compiler.tune_sizes import combinations
from onnxsmith.compiler.tuned import Timing, Tuned
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes import lower
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.lower.kernels import Interval
from onnxsmith.passes.lower.shape_class import shape_class
from onnxsmith.runtime.measure import Ratio, Run
from tests.toy import encoder, parsed

SKIP = "com.microsoft.SkipLayerNormalization"
HERE = Machine("a processor", ("avx2",), 2, "1.31", 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tuned.CACHE_VARIABLE, str(tmp_path / "cache"))


class TestShapeClass:
    @staticmethod
    def of(shape: str, heads: int = 2, mask: str = "") -> str:
        model = parsed(f"""
<ir_version: 10, opset_import: ["" : 23]>
g (float[{shape}] q, float[{shape}] k, float[{shape}] v, float[T, T] mask) => (float[{shape}] y)
{{ y = Attention<q_num_heads={heads}, kv_num_heads={heads}, scale=0.3>(q, k, v{mask}) }}""")
        kernels = target("cpu", "fp32").kernels
        assert kernels is not None
        rules = lower.rules(kernels.at_any_cost())
        found = (rule.match(node) for rule in rules for node in model.graph)
        return next(shape_class(m).text for m in found if isinstance(m, Match))

    def test_is_blind_to_names(self) -> None:
        assert self.of("B, S, 16") == self.of("batch_size, S2, 16")

    def test_sees_sizes_heads_and_equal_dimensions(self) -> None:
        known = self.of("B, S, 16")
        assert len({known, self.of("B, S, 32"), self.of("B, B, 16"), self.of("B, 4, 16"), self.of("B, S, 16", 4)}) == 5


@pytest.fixture
def model() -> ir.Model:
    """An encoder whose exporter calls its dimensions otherwise."""
    made = encoder()
    made.graph.inputs[0].shape = ir.Shape(["b", "s"])
    made.graph.inputs[1].shape = ir.Shape(["b", "past + s"])
    return made


class TestSizes:
    def test_every_combination_by_the_models_names(self, model: ir.Model) -> None:
        found = combinations(model, {"batch": [1, 8], "s": [32, 64]}, {})
        assert found == [{"b": b, "s": s} for b in (1, 8) for s in (32, 64)]

    @pytest.mark.parametrize(
        ("shapes", "mention"),
        [
            ({"batch": [1], "sequence": [8], "colour": [3]}, "no dimension 'colour'; it has b, s"),
            ({"batch": [1]}, "no size for dimension 's'"),
            ({"batch": [0], "s": [8]}, "batch needs sizes of at least 1"),
            ({"batch": [], "s": [8]}, "batch needs sizes of at least 1"),
        ],
    )
    def test_wrong_use(self, model: ir.Model, shapes: Mapping[str, list[int]], mention: str) -> None:
        with pytest.raises(BadUsage, match=mention):
            combinations(model, shapes, {})

    def test_beyond_the_positions(self, model: ir.Model) -> None:
        with pytest.raises(BadInput, match="sequence=65 is beyond this model's 64 positions"):
            combinations(model, {"batch": [1], "sequence": [8, 65]}, {"s": 64})

    def test_a_dimension_without_a_name(self) -> None:
        model = encoder()
        model.graph.inputs[0].shape = ir.Shape([None, "s"])
        with pytest.raises(BadInput, match="input input_ids leaves dimension 0 without a name"):
            combinations(model, {}, {})


class TestStore:
    TIMING = Timing({"batch": 1}, 2.0, 1.0, 0.5, 0.4, 0.6)

    def test_round_trip(self) -> None:
        known = Tuned(HERE).with_results({(SKIP, "x"): [self.TIMING]}, "model", {"mlas.x": "1"})
        tuned.write(known)
        assert tuned.read(HERE) == replace(known, sites={(SKIP, "x"): [self.TIMING]})

    def test_other_sites_stay(self) -> None:
        known = Tuned(HERE).with_results({(SKIP, "x"): [self.TIMING]}, "model", {})
        again = known.with_results({(SKIP, "y"): [self.TIMING]}, "other", {})
        assert set(again.sites) == {(SKIP, "x"), (SKIP, "y")} and set(again.sessions) == {"model", "other"}

    def test_another_machine_knows_nothing(self) -> None:
        tuned.write(Tuned(HERE).with_results({(SKIP, "x"): [self.TIMING]}, "model", {}))
        for other in (replace(HERE, onnxruntime="1.32"), replace(HERE, threads=1), replace(HERE, processor="b")):
            assert tuned.read(other) == Tuned(other)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "null",
            '{"format": 2}',
            '{"format": 1, "sites": [], "sessions": {}}',
            '{"format": 1, "sites": {"op": {"x": [{"sizes": {}}]}}, "sessions": {}}',
            '{"format": 1, "sites": {}, "sessions": {"m": {"session.optimized_model_file": "/etc/passwd"}}}',
            "[" * 100_000,
            "\0",
        ],
    )
    def test_what_cannot_be_read_is_passed_over(self, text: str) -> None:
        path = tuned.write(Tuned(HERE))
        path.write_text(text)
        found = tuned.read(HERE)
        assert str(path) in found.problem and not found.sites and not found.sessions

    def test_times_that_no_clock_gives(self) -> None:
        path = tuned.write(Tuned(HERE).with_results({(SKIP, "x"): [replace(self.TIMING, ratio=-1.0)]}, "model", {}))
        assert "above 0" in tuned.read(HERE).problem and path.exists()

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv(tuned.CACHE_VARIABLE, str(tmp_path / "file"))
        with pytest.raises(BadInput, match="set ONNXSMITH_CACHE to a folder"):
            tuned.write(Tuned(HERE))

    def test_where(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert tuned.cache_folder() == tmp_path / "cache"
        monkeypatch.delenv(tuned.CACHE_VARIABLE)
        monkeypatch.setenv("XDG_CACHE_HOME", "/x")
        assert tuned.cache_folder() == Path("/x/onnxsmith")
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert tuned.cache_folder() == Path.home() / ".cache" / "onnxsmith"

    def test_sizes_count_alike(self) -> None:
        twice = tuned.overall([replace(self.TIMING, ratio=r, low=r / 2, high=r * 2) for r in (0.25, 1.0)])
        assert (twice.ratio, twice.low, twice.high) == pytest.approx((0.5, 0.25, 1.0))


@pytest.mark.parametrize(
    ("interval", "faster", "slower"),
    [((0.9, 0.8, 0.99), True, False), ((1.1, 1.01, 1.2), False, True), ((0.9, 0.8, 1.0), False, False)],
)
def test_an_interval_decides_where_it_excludes_one(
    interval: tuple[float, float, float], faster: bool, slower: bool
) -> None:
    found = Interval(*interval)
    assert (found.faster, found.slower) == (faster, slower)


class TestTimed:
    @staticmethod
    def clocked(a: float, b: float, seconds: float) -> tuple[Ratio, Counter[str]]:
        """Two runs that take exactly so long on a clock that only they move."""
        now, calls = [0.0], Counter[str]()

        def run(name: str, took: float) -> Run:
            def call() -> None:
                now[0] += took
                calls[name] += 1

            return call

        return timed(run("a", a), run("b", b), seconds, clock=lambda: now[0]), calls

    def test_ratio_and_times_of_one_run(self) -> None:
        found, _ = self.clocked(1e-5, 2e-5, 0.1)
        assert (found.median, found.a_ms, found.b_ms) == pytest.approx((2.0, 0.01, 0.02))

    def test_slow_runs_get_the_fewest_pairs(self) -> None:
        _, calls = self.clocked(1.0, 1.0, 0.1)
        assert calls == {"a": 8 + 3, "b": 8 + 3}

    def test_quick_runs_stop_in_time(self) -> None:
        _, calls = self.clocked(0.01, 0.01, 0.5)
        assert 20 <= calls["a"] <= 30
