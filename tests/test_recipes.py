"""The problems of the recipes and the report of ``make recipes``, on models that are far too small."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from benchmarks.recipes import run as recipes  # noqa: E402
from benchmarks.recipes.judge import FP32, INT8, RAW, TORCH, Report, _difference, faults, judge  # noqa: E402
from benchmarks.recipes.page import write_page  # noqa: E402
from onnxsmith.errors import BadInput, CheckFailed  # noqa: E402
from onnxsmith.models.recipes.bert_text import MASK  # noqa: E402
from onnxsmith.models.training import Recipe, build_problem, read_recipe, recipe_names  # noqa: E402

BERT = """
steps = 3
batch = 4
[problem]
name = "masked-words"
held_out = 6
[model]
model_type = "bert"
architectures = ["BertForMaskedLM"]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 64
type_vocab_size = 2
[runs.reading]
problem.stories = 50
[runs.pairs]
start = "reading"
problem = {name = "sentence-pairs", labelled = 12}
model.architectures = ["BertForSequenceClassification"]
[runs.pairs-alone]
problem = {name = "sentence-pairs", labelled = 12}
model.architectures = ["BertForSequenceClassification"]
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def recipe(build: Path) -> Recipe:
    path = build / "small.toml"
    path.write_text(BERT, encoding="utf-8")
    return read_recipe(path)


@pytest.fixture(scope="module")
def report(recipe: Recipe, build: Path) -> Report:
    return recipes.make(recipe, build)


class TestReport:
    def test_judges_what_comes_of_another_run(self, report: Report) -> None:
        assert [result.run.name for result in report.results] == ["reading", "pairs", "pairs-alone"]
        assert list(report.judged) == ["pairs"]
        judged = report.judged["pairs"]
        assert list(judged["variants"]) == [TORCH, RAW, FP32, INT8]
        assert judged["questions"] == 6
        assert [judged["variants"][name]["same"] for name in (TORCH, RAW, FP32)] == [6, 6, 6]
        assert 0 < judged["int8 layers"] <= judged["layers"]
        own, int8 = (judged["variants"][name]["quality"]["right, %"] for name in (TORCH, INT8))
        assert judged["difference"] == pytest.approx(int8 - own)

    def test_the_interval_of_a_difference(self) -> None:
        """Two of four differ, one to either side: a mean of 0, and a standard error of sqrt(20000 / 3) / 2."""
        difference, interval = _difference([100, 0, 100, 0], [0, 100, 100, 0])
        assert (difference, interval) == (0, pytest.approx(1.96 * (20000 / 3) ** 0.5 / 2))

    def test_keeps_what_is_done(
        self, report: Report, recipe: Recipe, build: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recipes, "judge", lambda *_: pytest.fail("judged again"))
        again = recipes.make(recipe, build)
        assert again.judged == report.judged and again.seconds == report.seconds

    def test_other_data_than_in_training(self, report: Report, tmp_path: Path) -> None:
        changed = replace(report.results[1], quality={"right, %": 101.0})
        with pytest.raises(CheckFailed, match="was 101 after training; its data has changed, delete .*pairs"):
            judge(changed, tmp_path)

    def test_page_has_every_run_and_its_curve(self, report: Report, tmp_path: Path) -> None:
        write_page([report], tmp_path)
        text = (tmp_path / "recipes.md").read_text(encoding="utf-8")
        assert "| small: pairs | right, % |" in text and "6, 6, " in text
        assert all(f"| {result.run.name} | 3 |" in text for result in report.results)
        assert "](recipes/small.png)" in text and (tmp_path / "recipes" / "small.png").stat().st_size > 1000

    def test_faults(self, report: Report) -> None:
        judged = copy.deepcopy(report.judged["pairs"])
        for within in (0, 0.9, -0.9):
            judged["difference"] = within
            assert faults(judged) == []
        judged["variants"][FP32]["same"] = 4
        for beyond in (1.5, -1.5):
            judged["difference"] = beyond
            changed, off = faults(judged)
            assert changed == f"{FP32} answers 2 of 6 questions differently"
            assert off == f"int8 is off by {beyond:+} right, %"


class TestProblems:
    @pytest.mark.parametrize("name", ["bert", "bart", "t5"])
    def test_learn_something_new_in_every_run(self, name: str) -> None:
        """The recipes that are shipped: their data, their models, and a first batch's loss with gradients."""
        for run in read_recipe(name).runs:
            if run.name.endswith("-from-scratch"):
                continue
            problem = build_problem(_smaller(run))
            batch = problem.collate([problem.examples[i] for i in range(4)])
            loss = problem.loss(batch, torch.Generator().manual_seed(0))
            loss.backward()
            assert loss.isfinite() and any(p.grad is not None and p.grad.any() for p in problem.module.parameters())
            right = problem.quality(problem.answers(problem.runner()))
            assert all(0 <= value <= 100 for value in right.values())
            read = problem.reads([problem.examples[i] for i in range(3)])
            assert list(read) == [spec.name for spec in problem.plan.task.inputs]
            assert all(len(ids) == 3 for ids in read.values()) and problem.runner()(read)

    def test_masked_words_are_new_and_hidden(self) -> None:
        problem: Any = build_problem(_smaller(read_recipe("bert").runs[0]))
        known = {tuple(paragraph) for document in problem.documents for paragraph in document}
        for ids, labels in problem.held_out:
            whole = tuple(label if label >= 0 else id for id, label in zip(ids, labels, strict=True))
            assert whole[1:-1] not in known
        assert any(MASK in ids for ids, _ in problem.held_out)

    def test_of_a_package_says_what_to_leave_out(self) -> None:
        (run,) = read_recipe("minilm").runs
        with pytest.raises(BadInput, match="hidden_size.*leave it out"):
            build_problem(_with(run, model={"hidden_size": 8}))

    @pytest.mark.parametrize(
        ("settings", "mentions"), [({"noise": "white"}, "infill, spans"), ({"density": 1.0}, "between 0 and 1")]
    )
    def test_noise_that_cannot_be_had(self, settings: dict[str, Any], mentions: str) -> None:
        run = read_recipe("bart").runs[0]
        with pytest.raises(BadInput, match=mentions):
            build_problem(_with(run, settings=settings))


def test_every_recipe_is_known_to_the_report() -> None:
    assert {"bart", "bert", "minilm", "t5"} <= set(recipe_names())


def _smaller(run: Any) -> Any:
    """With less data."""
    sizes = {"stories": 40} if "noise" in run.settings or run.problem == "masked-words" else {"labelled": 20}
    return _with(run, settings={**run.settings, **sizes, "held_out": 5})


def _with(run: Any, **changes: Any) -> Any:
    return replace(run, **changes)
