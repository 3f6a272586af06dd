"""The bookkeeping of make bench-generate: tokens, times, workers and tables. No test asserts a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import process
from benchmarks.bench.process import Broken
from benchmarks.bench.report import rewritten
from benchmarks.generate import report
from benchmarks.generate.engines import SUBJECTS, Case, Engine
from benchmarks.generate.measure import Speaker, measure, same, summarize, times

COUNTING = """
from benchmarks.generate.adapters import Said
def open_engine(folder, variant, threads):
    if variant == "absent":
        raise RuntimeError("no such\\nmodel")
    print("libraries talk on stdout")
    def generate(prompts, new, beams):
        if beams > 1:
            raise ValueError("no beams")
        return Said([[row[-1] + n for n in range(new)] for row in prompts], 0.5, 1.5, 10**9)
    return generate
"""
OURS = Engine("onnxsmith fp32", "fp32", "ours", "fp32")
SLOW = Engine("slow", "fp32", "ours", "fp32", rounds=2)
CASE = Case(2, 1, new=3)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Speaker]]:
    """Two workers in a folder whose engine ``ours`` needs no model."""
    for name in ("bench/worker.py", "generate/worker.py", "generate/adapters/__init__.py"):
        path = tmp_path / "benchmarks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((process.ROOT / "benchmarks" / name).read_text())
    (tmp_path / "benchmarks/generate/adapters/ours.py").write_text(COUNTING)
    monkeypatch.setattr(process, "ROOT", tmp_path)
    with (tmp_path / "log").open("wb") as log:
        found = {engine.name: Speaker(engine, tmp_path, 1, log) for engine in (OURS, SLOW)}
        yield found
        for worker in found.values():
            worker.close()


def test_workers_generate_and_slow_ones_less_often(workers: dict[str, Speaker]) -> None:
    found = measure(workers, CASE, [[5], [7]], 3, lambda: 2.0)
    assert found[OURS.name]["ids"] == [[5, 6, 7], [7, 8, 9]]
    assert [len(found[name]["step"]) for name in (OURS.name, SLOW.name)] == [3, 2]
    cell = summarize(found, {OURS.name: OURS.name, SLOW.name: OURS.name}, OURS.name)[SLOW.name]
    assert (cell["first"], cell["step"], cell["roof"], cell["same"]) == (500, 500, 0.5, 1)
    assert cell["ratios"] == {key: [1, 1, 1] for key in ("whole", "first", "step")}


def test_an_engine_that_fails_is_told(workers: dict[str, Speaker]) -> None:
    found = measure(workers, Case(1, 1, new=3, beams=2), [[5]], 2, lambda: 2.0)
    assert found[OURS.name] == {"why": "ValueError: no beams"}


def test_a_model_that_does_not_load(workers: dict[str, Speaker], tmp_path: Path) -> None:
    absent = Engine("absent", "fp32", "ours", "absent")
    with (tmp_path / "log").open("wb") as log, pytest.raises(Broken, match="RuntimeError: no such model"):
        Speaker(absent, tmp_path, 1, log)


def test_tokens_are_the_same_up_to_the_first_that_differs() -> None:
    assert same([[1, 2, 3, 4], [1, 2, 3, 4]], [[1, 2, 0, 4], [1, 2, 3, 4]]) == 0.75
    with pytest.raises(ValueError, match="longer"):
        same([[1]], [[1, 2]])


def test_times_of_an_engine_that_tells_no_first_token() -> None:
    assert times({"first": 0.0, "total": 2.0, "read": 0}, CASE, 2.0) == {"whole": 2000}


def test_the_page_has_every_engine_and_why_one_is_absent() -> None:
    told = {"whole": 9.0, "first": 5.0, "step": 2.0, "same": 1.0, "roof": 0.5}
    ratios = {key: [0.5, 0.4, 0.6] for key in ("whole", "first", "step")}
    engines = {"a": {**told, "ratios": ratios}, "b": {"why": "no model"}}
    cells: list[dict[str, Any]] = [
        {"model": model, **vars(subject.cases[0]), "engines": engines} for model, subject in SUBJECTS.items()
    ]
    machine = {"processor": "x", "cores": 2, "threads": 2, "read_gb_s": 20, "versions": {}, "peers": {"p": "1"}}
    flat = {"model": "smollm2", "flat": {"a": {"64": 9.0, "256": 8.5}}}
    text = "\n".join(report.markdown({"machine": machine, "rounds": 5, "cells": [*cells, flat]}))
    assert "| a | 5.0 | 0.50 [0.40, 0.60] | 500.0 | 0.50 [0.40, 0.60] | 50% | 100% |" in text
    assert "| a | 0.009 | 0.50 [0.40, 0.60] | 100% |" in text
    assert text.count("| b | not timed: no model |") == len(cells)
    assert "| engine | 64 | 256 |" in text and "| a | 9.0 | 8.5 |" in text
    assert all(len(row.split("|")) in (6, 9, 5) for row in text.splitlines() if row.startswith("|"))


def test_other_parts_of_the_page_stay() -> None:
    page = "before\n<a>\nold\n</a>\nafter"
    assert rewritten(page, "<a>", "</a>", ["new"]) == "before\n<a>\n\nnew\n\n</a>\nafter"


def test_every_subject_has_a_reference_of_its_tokens() -> None:
    for subject in SUBJECTS.values():
        assert subject.engines[0].adapter == "ours"
        assert any(engine.name == "transformers" for engine in subject.engines)
