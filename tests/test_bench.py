"""The benchmark's bookkeeping: orders, ratios, judging outputs, workers, and the tables. No test asserts a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import process, report
from benchmarks.bench.engines import CALIBRATED, REFERENCE, engines, references
from benchmarks.bench.measure import judge, orders, ratio, set_shapes, time_all
from benchmarks.bench.process import Broken, Worker

torch = pytest.importorskip("torch")

ADDING = """
import numpy as np
def open_engine(folder, variant, threads):
    if variant == "absent":
        raise RuntimeError("no such\\nmodel")
    print("libraries talk on stdout")
    def prepare(ids):
        if ids.shape[0] == 3:
            raise ValueError("three rows")
        return lambda: np.stack([ids, ids + 1], -1)
    return prepare
"""


def test_orders_start_everyone_alike_and_turn_around() -> None:
    found = list(orders("abc", 6))
    assert [order[0] for order in found[::2]] == ["a", "b", "c"]
    assert all(second == first[::-1] for first, second in zip(found[::2], found[1::2], strict=True))


def test_ratio_is_ours_over_theirs_with_its_interval() -> None:
    median, low, high = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (median, low, high) == (0.5, 0.5, 0.5)


def test_every_lossy_precision_is_an_engine() -> None:
    names = [engine.name for engine in engines()]
    assert names[0] == REFERENCE.name and "onnxsmith int8" in names
    assert [engine.variant for engine in references("low", engines())] == ["int8", CALIBRATED.variant]
    assert references("fp32", engines()) == [REFERENCE] == references("low", [REFERENCE])


@pytest.mark.parametrize(
    ("output", "fault"), [(np.ones((1, 2, 3)), False), (-np.ones((1, 2, 3)), True), (np.ones((1, 2, 4)), True)]
)
def test_wrong_output_is_told(output: Any, fault: bool) -> None:
    found = judge({"x": {"seconds": 1.0, "output": output}}, np.ones((1, 2, 3)), {"x": "fp32"})
    assert ("why" in found["x"]) == fault


def test_not_finite_output_is_wrong() -> None:
    found = judge({"x": {"output": np.full((1, 2, 3), np.nan)}}, np.ones((1, 2, 3)), {"x": "low"})
    assert "wrong output" in found["x"]["why"]


def test_products_are_those_of_the_module() -> None:
    from benchmarks.bench.adapters.products import find_products

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 6)

        def forward(self, ids: Any, mask: Any) -> Any:
            x = self.linear(torch.zeros(*ids.shape, 4))
            return x @ x.transpose(1, 2)

    assert find_products(Module(), (2, 3)) == {(1, 6, 4, 6): 1, (2, 3, 6, 3): 1}


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder where the worker finds an engine named ``ours`` that needs no model."""
    home = tmp_path / "benchmarks" / "bench"
    (home / "adapters").mkdir(parents=True)
    (home / "adapters" / "ours.py").write_text(ADDING)
    (home / "worker.py").write_text((process.ROOT / "benchmarks" / "bench" / "worker.py").read_text())
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text('{"vocab_size": 100}')
    monkeypatch.setattr(process, "ROOT", tmp_path)
    return tmp_path


def test_worker_answers_shapes_and_runs(adapter: Path) -> None:
    with (adapter / "log").open("wb") as log:
        worker = Worker(REFERENCE, adapter, 1, log)
        try:
            ready = set_shapes({"x": worker}, 2, 5, adapter)
            assert ready["x"]["output"].shape == (2, 3, 2)
            assert len(time_all({"x": worker}, {"x": 0.01}, 4)["x"]) == 4
            assert set_shapes({"x": worker}, 3, 5, adapter)["x"]["why"] == "ValueError: three rows"
        finally:
            worker.close()


def test_worker_says_why_a_model_does_not_load(adapter: Path) -> None:
    from dataclasses import replace

    with (adapter / "log").open("wb") as log, pytest.raises(Broken, match="RuntimeError: no such model"):
        Worker(replace(REFERENCE, variant="absent"), adapter, 1, log)


def test_summary_counts_the_cells_that_are_lost() -> None:
    def cell(median: float, low: float) -> dict[str, Any]:
        peer = {"ms": 1.0, "ratios": {"ours": [median, low, 2.0]}, "cosine": median / 4}
        found = {"ours": {"ms": 1.0, "ratios": {"ours": [1, 1, 1]}}, "peer": peer}
        return {"model": "gpt2", "group": "fp32", "references": ["ours"], "engines": found}

    rows = report.summary([cell(0.5, 0.4), cell(2.0, 1.06)], "fp32", "ours")
    assert rows == [("peer", "1.000", "0.50", "2.00", "2", "1", "0.1250")]
