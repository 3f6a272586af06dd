"""Gaps, labels and answers of tiny random BERTs, beside transformers' pipelines with the same weights and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.model import LoadedModel
from onnxsmith.runtime.tasks.answer import best_span
from onnxsmith.runtime.tokenize import Tokens, Window
from tests.command import Invoke, assert_refused
from tests.texts import word_piece

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 48
CONFIG = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": LENGTH,
}
LABELS = {0: "good", 1: "bad", 2: "neither"}
GAPS = ["The quick [MASK] fox.", "Hello [MASK], hello tokenizers! The [MASK] dog", "[MASK]"]
CONTEXT = "The quick brown fox jumps over the lazy dog's back."
KINDS = {"fill-mask": "MaskedLM", "classify": "SequenceClassification", "answer-span": "QuestionAnswering"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a random model for a task, and its tokenizer."""

    def make(task: str, **config: Any) -> Path:
        folder = word_piece(tmp_path_factory.mktemp(task) / "checkpoint")
        torch.manual_seed(1)
        model = getattr(transformers, f"BertFor{KINDS[task]}")(transformers.BertConfig(**CONFIG, **config))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def models(checkpoint: Callable[..., Path]) -> dict[str, tuple[Path, LoadedModel]]:
    """By task the checkpoint and our export of it."""
    found = {}
    for task in KINDS:
        folder = checkpoint(task, **({"id2label": LABELS} if task == "classify" else {}))
        found[task] = folder, onnxsmith.load(_export(folder))
    return found


def _export(folder: Path) -> Path:
    return onnxsmith.export("bert", folder.parent / "ours", checkpoint=folder, exporter="torchscript")


def _tokenizer(folder: Path) -> Any:
    return transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=LENGTH)


def _pipeline(task: str, folder: Path) -> Any:
    kind = {"fill-mask": "fill-mask", "classify": "text-classification"}[task]
    model = getattr(transformers, f"BertFor{KINDS[task]}").from_pretrained(folder)
    return transformers.pipeline(kind, model=model, tokenizer=_tokenizer(folder), device="cpu")


def _near(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [{k: v for k, v in one.items() if k != "score"} for one in ours] == [
        {k: v for k, v in one.items() if k != "score"} for one in theirs
    ]
    assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], rel=1e-4)


class TestFillMask:
    def test_is_the_pipelines(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        folder, model = models["fill-mask"]
        theirs = _pipeline("fill-mask", folder)(GAPS)
        for gaps, expected in zip(model.fill_mask(GAPS), theirs, strict=True):
            wanted = expected if len(gaps) > 1 else [expected]
            for gap, one in zip(gaps, wanted, strict=True):
                _near([asdict(filling) for filling in gap], one)

    def test_text_without_a_gap(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        with pytest.raises(BadInput, match=r"no gap in 'Hello'.*\[MASK\]"):
            models["fill-mask"][1].fill_mask(["Hello"])

    def test_no_tokens_wanted(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        with pytest.raises(BadUsage, match="top_k"):
            models["fill-mask"][1].fill_mask(GAPS, top_k=0)


class TestClassify:
    def test_is_the_pipelines(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        folder, model = models["classify"]
        pair = {"text": "Hello world", "text_pair": "The lazy dog"}
        theirs = _pipeline("classify", folder)([CONTEXT, pair], top_k=None)
        ours = model.classify([CONTEXT, (pair["text"], pair["text_pair"])])
        for labels, expected in zip(ours, theirs, strict=True):
            assert {one.label for one in labels} == set(LABELS.values())
            _near([asdict(label) for label in labels], expected)

    @pytest.mark.parametrize(
        "config", [{"problem_type": "multi_label_classification"}, {"problem_type": "regression"}, {"num_labels": 1}]
    )
    def test_scores_that_exclude_nothing(self, checkpoint: Callable[..., Path], config: dict[str, Any]) -> None:
        folder = checkpoint("classify", **config)
        model = onnxsmith.load(_export(folder))
        (theirs,) = _pipeline("classify", folder)([CONTEXT], top_k=None)
        _near([asdict(label) for label in model.classify([CONTEXT])[0]], theirs)

    def test_labels_of_another_number(self, models: dict[str, tuple[Path, LoadedModel]], tmp_path: Path) -> None:
        folder = models["classify"][1].artifact.folder
        assert folder is not None
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((folder / "onnxsmith.json").read_text()) | {"labels": ["one"]}
        (tmp_path / "onnxsmith.json").write_text(json.dumps(manifest))
        with pytest.raises(BadInput, match="expected 3 labels"):
            onnxsmith.load(tmp_path).classify(["Hello"])


class TestAnswer:
    def test_is_the_best_span_of_the_reference(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        folder, model = models["answer-span"]
        reference = transformers.BertForQuestionAnswering.from_pretrained(folder).eval()
        feeds = _tokenizer(folder)("Who jumps?", CONTEXT, return_tensors="pt")
        with torch.no_grad():
            logits = reference(**feeds)
        inside = np.array([side == 1 for side in feeds.sequence_ids(0)])
        counted = inside | (np.arange(inside.size) == 0)
        starts, ends = (
            np.exp(x[0].numpy().astype(np.float64)) * counted / np.exp(x[0].numpy().astype(np.float64))[counted].sum()
            for x in (logits.start_logits, logits.end_logits)
        )
        score, first, last = max(
            (starts[a] * ends[b], a, b)
            for a in np.flatnonzero(inside)
            for b in np.flatnonzero(inside)
            if a <= b < a + 15
        )
        words = [feeds.word_to_chars(0, feeds.token_to_word(0, int(n)), 1) for n in (first, last)]
        found = model.answer("Who jumps?", CONTEXT)
        assert found.score == pytest.approx(score, rel=1e-4)
        assert (found.start, found.end) == (words[0].start, words[1].end)
        assert found.answer == CONTEXT[found.start : found.end]

    def test_reads_all_of_a_long_context(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        model = models["answer-span"][1]
        context = " ".join(f"word{n} and" for n in range(40))
        found = model.answer("Who?", context)
        parts = [model.answer("Who?", context[at : at + 60]) for at in range(0, len(context), 20)]
        assert found.answer == context[found.start : found.end] != ""
        assert len({part.answer for part in parts}) > 1  # so that the choice of the window matters

    def test_windows_cover_the_context(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        from onnxsmith.runtime.tokenize import text_encoder

        context = " ".join(["dog"] * 100)
        windows = text_encoder(models["answer-span"][1].artifact).windows("Who?", context, 12)
        places = {place for window in windows for place in window.words if place is not None}
        assert sorted(places) == [(4 * n, 4 * n + 3) for n in range(100)]
        assert all(len(window.tokens.ids) <= LENGTH for window in windows) and len(windows) > 2

    @pytest.mark.parametrize(("question", "context"), [("dog " * 60, "dog"), ("Who?", " ")])
    def test_no_place_and_no_text(
        self, models: dict[str, tuple[Path, LoadedModel]], question: str, context: str
    ) -> None:
        with pytest.raises(BadInput, match="context"):
            models["answer-span"][1].answer(question, context)

    def test_a_span_stays_within_the_context(self) -> None:
        """The best start stands in the question, the best end behind the context, and the best pair is backwards."""
        words = (None, None, (0, 3), (4, 7), (8, 11), None)
        window = Window(Tokens([0] * 6, [0] * 6), words)
        starts = np.array([0, 9, 1, 2, 5, 0], np.float32)
        ends = np.array([0, 0, 6, 4, 1, 9], np.float32)
        assert best_span(starts, ends, window, 15)[1:] == (2, 2)
        assert best_span(-starts, -ends, window, 1)[1:] == (3, 3)


class TestCommand:
    def test_fill_mask(self, models: dict[str, tuple[Path, LoadedModel]], invoke: Invoke) -> None:
        folder, model = models["fill-mask"]
        result = invoke("run", model.artifact.folder, "--fill-mask", GAPS[0], "--top-k", "3", "--json")
        record = json.loads(result.out)
        assert record["text"] == GAPS[0]
        _near(record["fillings"][0], _pipeline("fill-mask", folder)(GAPS[0], top_k=3))

    def test_tables(self, models: dict[str, tuple[Path, LoadedModel]], invoke: Invoke) -> None:
        result = invoke("run", models["classify"][1].artifact.folder, "--classify", "Hello", "--pair", "world")
        assert result.code == 0 and all(label in result.out for label in LABELS.values())
        asked = ("--question", "Who?", "--context", CONTEXT)
        result = invoke("run", models["answer-span"][1].artifact.folder, *asked)
        assert models["answer-span"][1].answer("Who?", CONTEXT).answer in result.out

    def test_lines(self, models: dict[str, tuple[Path, LoadedModel]], invoke: Invoke, tmp_path: Path) -> None:
        asked = [{"text": "Hello"}, {"text": "Hello", "text_pair": "world"}]
        path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in asked))
        model = models["classify"][1]
        assert invoke("run", model.artifact.folder, "--jsonl", path, "--output", output).code == 0
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert [{k: v for k, v in line.items() if k != "labels"} for line in lines] == asked
        _near(lines[1]["labels"], [asdict(label) for label in model.classify([("Hello", "world")])[0]])
        assert [json.loads(x) for x in invoke("run", model.artifact.folder, "--jsonl", path).out.splitlines()] == lines

    @pytest.mark.parametrize("line", ['{"context": "x"}', "[1]", "{", '{"question": "x", "context": 1}'])
    def test_broken_lines(
        self, models: dict[str, tuple[Path, LoadedModel]], invoke: Invoke, tmp_path: Path, line: str
    ) -> None:
        path = tmp_path / "in.jsonl"
        path.write_text('{"question": "Who?", "context": "me"}\n' + line)
        assert_refused(invoke("run", models["answer-span"][1].artifact.folder, "--jsonl", path), "line 2", "question")

    def test_another_task(self, models: dict[str, tuple[Path, LoadedModel]], invoke: Invoke) -> None:
        folder = models["classify"][1].artifact.folder
        assert_refused(invoke("run", folder, "--fill-mask", GAPS[0]), "fill-mask", "classify", str(folder))
        assert_refused(invoke("run", folder, "--question", "Who?", "--context", "me"), "answer-span", "classify")
        assert_refused(invoke("run", models["fill-mask"][1].artifact.folder, "--classify", "x"), "fill-mask")

    def test_half_a_character(self, models: dict[str, tuple[Path, LoadedModel]]) -> None:
        with pytest.raises(BadInput, match="not Unicode text"):
            models["classify"][1].classify(["Hello", ("a", "\udcff")])
        with pytest.raises(BadInput, match="not Unicode text"):
            models["answer-span"][1].answer("\udcff", CONTEXT)

    @pytest.mark.parametrize(
        "options",
        [
            ("--question", "Who?"),
            ("--pair", "x"),
            ("--classify", "x", "--fill-mask", "[MASK]"),
            ("--classify", "x", "--text", "y"),
        ],
    )
    def test_half_a_request(self, invoke: Invoke, tmp_path: Path, options: tuple[str, ...]) -> None:
        assert invoke("run", tmp_path, *options).code == 2
