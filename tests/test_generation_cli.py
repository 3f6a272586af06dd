"""``onnxsmith run`` on models that generate: prompts, chat, lines, and what goes wrong."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxsmith.runtime.generation.call import Stream
from tests.command import Invoke, assert_refused
from tests.embedder import write_embedder
from tests.generation import folders, ours

NEW = ("--max-new-tokens", 8)


@pytest.fixture
def model() -> Path:
    return folders("gpt2")[1]


def printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def test_a_prompt(invoke: Invoke, model: Path) -> None:
    expected = ours("gpt2").generate("Once", max_new_tokens=8).texts[0]
    result = invoke("run", model, "--prompt", "Once", *NEW)
    assert (result.code, result.out) == (0, printable(expected) + "\n")
    assert "4 prompt tokens" in result.err and "8 new tokens" in result.err and "tokens/s" in result.err


def test_a_prompt_as_json(invoke: Invoke, model: Path) -> None:
    result = invoke("run", model, "--prompt", "Once", "--json", "--num-beams", 3, "--num-return-sequences", 2, *NEW)
    records = [json.loads(line) for line in result.out.splitlines()]
    expected = ours("gpt2").generate("Once", num_beams=3, num_return_sequences=2, max_new_tokens=8)
    assert [record["text"] for record in records] == list(expected.texts)
    assert {record["prompt"] for record in records} == {"Once"}


def test_escape_sequences_do_not_reach_the_terminal(
    invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = iter(["a\x1b[31m", "\nb\r"])
    monkeypatch.setattr(Stream, "__next__", lambda self: next(pieces))
    assert invoke("run", model, "--prompt", "Once").out == "a[31m\nb\n"


def test_ctrl_c_keeps_what_was_generated(invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    following = Stream.__next__

    def interrupted(self: Stream) -> str:
        if len(self.result.sequences[0]) >= 4:
            raise KeyboardInterrupt
        return following(self)

    monkeypatch.setattr(Stream, "__next__", interrupted)
    result = invoke("run", model, "--prompt", "Once", "--temperature", 2, "--seed", 1)
    assert result.code == 130 and result.out.endswith("\n") and "new tokens" in result.err


def test_lines(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    prompts = [f"Once {n}" for n in range(10)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n\n".join(json.dumps({"prompt": prompt}) for prompt in prompts), encoding="utf-8")
    result = invoke("run", model, "--jsonl", source, "--output", target, *NEW)
    assert (result.code, result.out) == (0, "")
    records = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [record["prompt"] for record in records] == prompts
    assert [record["text"] for record in records] == [
        ours("gpt2").generate(prompt, max_new_tokens=8).texts[0] for prompt in prompts
    ]
    printed = invoke("run", model, "--jsonl", source, *NEW)
    assert [json.loads(line) for line in printed.out.splitlines()] == records


@pytest.mark.parametrize(
    ("content", "mention"),
    [(b"", "no line in it"), (b"{", "line 1: not JSON"), (b'{"a": 1}', 'with a "prompt"'), (b"\xff", "not UTF-8")],
)
def test_broken_lines(invoke: Invoke, model: Path, tmp_path: Path, content: bytes, mention: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    assert_refused(invoke("run", model, "--jsonl", tmp_path / "in.jsonl", "--output", tmp_path / "out"), mention)
    assert not (tmp_path / "out").exists()


def test_chat(invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n\nAnd?\n/new\nHi\n"))
    result = invoke("run", model, "--chat", *NEW)
    first = answer([("user", "Hi")])
    second = answer([("user", "Hi"), ("assistant", first), ("user", "And?")])
    assert (result.code, result.out) == (0, "".join(printable(text) + "\n" for text in (first, second, first)))


def answer(talk: list[tuple[str, str]]) -> str:
    messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in talk]
    prompt = ours("gpt2").prompt(messages)
    return ours("gpt2").generate(prompt, max_new_tokens=8, add_special_tokens=False).texts[0]


def test_ctrl_c_ends_an_answer_and_not_the_talk(invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\nHi\n"))

    def interrupted(self: Stream) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "__next__", interrupted)
    result = invoke("run", model, "--chat")
    assert (result.code, result.out) == (0, "\n\n")


def test_a_line_that_is_not_unicode(invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8", "surrogateescape"))
    assert_refused(invoke("run", model, "--chat", *NEW), "not Unicode text")


def test_texts_of_an_encoder_decoder(invoke: Invoke, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("bart")[1], tmp_path / "bart")
    shutil.copy(folders("gpt2")[1] / "tokenizer.json", folder / "decoder")
    manifest = json.loads((folder / "decoder" / "onnxsmith.json").read_text())
    (folder / "decoder" / "onnxsmith.json").write_text(json.dumps(manifest | {"tokenizer": "tokenizer.json"}))
    result = invoke("run", folder, "--text", "!#", "--text", "$", "--json", *NEW)
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [record["prompt"] for record in records] == ["!#", "$"] and all(r["tokens"] > 0 for r in records)


def test_what_a_model_lacks(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    embedder, nameless = write_embedder(tmp_path / "embedder"), folders("llama")[1]
    assert_refused(invoke("run", embedder, "--prompt", "red"), "without a cache", "onnxsmith optimize --cache")
    assert_refused(invoke("run", embedder, "--chat"), "without a cache")
    assert_refused(invoke("run", nameless, "--chat"), "no tokenizer")
    assert_refused(invoke("run", nameless, "--prompt", "red"), "no tokenizer")
    assert_refused(invoke("run", model, "--prompt", ""), "no token")
    assert_refused(invoke("run", model, "--prompt", "x" * 300), "300 tokens, and the model takes at most 199")
    silent = shutil.copytree(model, tmp_path / "silent")
    manifest = json.loads((silent / "onnxsmith.json").read_text())
    (silent / "onnxsmith.json").write_text(json.dumps(manifest | {"chat_template": None}))
    assert_refused(invoke("run", silent, "--chat"), "no chat template")


def test_contradicting_options(invoke: Invoke, model: Path) -> None:
    result = invoke("run", model, "--prompt", "a", "--num-beams", 2, "--temperature", 0.5)
    assert result.code == 2 and "contradict" in result.err and result.out == ""
    assert invoke("run", model, "--prompt", "a", "--chat").code == 2
    assert invoke("run", model, "--prompt", "a", "--output", "b.npz").code == 2
