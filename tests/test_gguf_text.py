"""Tokenizers out of GGUF metadata: the ids of transformers, and of sentencepiece itself, for the same tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from onnxsmith.errors import BadInput
from onnxsmith.models.gguf_file import GgufFile
from onnxsmith.models.gguf_text import read_gguf_text
from onnxsmith.models.text import TextFiles
from tests.gguf_files import write_file
from tests.texts import GPT2_TOKENS, TEXTS, byte_level

KEY = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
MORE = ("<|endoftext|>a<|endoftext|> b", "in 2024, 12345678 and ١٢٣ of ½", "def f(x):\n    return x\n\n\n", "I'LL it's")


def read(metadata: dict[str, Any]) -> TextFiles:
    found = read_gguf_text(GgufFile(Path("m.gguf"), metadata, {}, {}))
    assert found is not None
    return found


def tables(folder: Path, pre: str | None, **values: Any) -> dict[str, Any]:
    """A small byte-level tokenizer as a file has it."""
    byte_level(folder, GPT2_TOKENS)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    ids = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [CONTROL if token in GPT2_TOKENS else NORMAL for token in ids]
    found = {"model": "gpt2", "pre": pre, "tokens": ids, "token_type": kinds, "merges": merges, "eos_token_id": 0}
    return {KEY + key: value for key, value in (found | values).items() if value is not None}


class TestByteLevel:
    @pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
    def test_against_transformers(self, tmp_path: Path, pre: str) -> None:
        metadata = tables(tmp_path / "t", pre, bos_token_id=0, add_bos_token=False)
        write_file(tmp_path / "m.gguf", {"general.architecture": "llama", **metadata})
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
        self.complete(theirs.backend_tokenizer, pre)
        ours = Tokenizer.from_str(read(metadata).tokenizer)
        for text in (*TEXTS, *MORE):
            assert ours.encode(text).ids == theirs(text)["input_ids"], text
            assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs(text)["input_ids"], True)

    @staticmethod
    def complete(tokenizer: Tokenizer, pre: str) -> None:
        """What transformers makes of a file lacks these, which the tokenizers of SmolLM2 and Qwen2 have."""
        if pre == "smollm":
            digits = pre_tokenizers.Digits(individual_digits=True)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False)])
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()

    def test_whole_words_of_llama_3(self, tmp_path: Path) -> None:
        metadata = tables(tmp_path / "t", "llama-bpe")
        for table, value in (("tokens", "zzyzx"), ("token_type", NORMAL)):
            metadata[KEY + table].append(value)
        tokens = metadata[KEY + "tokens"]
        assert Tokenizer.from_str(read(metadata).tokenizer).encode("zzyzx").ids == [len(tokens) - 1]
        metadata[KEY + "pre"] = "qwen2"
        assert len(Tokenizer.from_str(read(metadata).tokenizer).encode("zzyzx").ids) > 1

    @pytest.mark.parametrize(
        ("pre", "flags", "first", "last"),
        [
            ("llama-bpe", {}, True, False),
            ("llama-bpe", {"add_bos_token": False}, False, False),
            ("qwen2", {}, False, False),
            ("qwen2", {"add_bos_token": True, "add_eos_token": True}, True, True),
        ],
    )
    def test_bos_and_eos(self, tmp_path: Path, pre: str, flags: dict[str, bool], first: bool, last: bool) -> None:
        metadata = tables(tmp_path / "t", pre, bos_token_id=5, **flags)
        ours = Tokenizer.from_str(read(metadata).tokenizer)
        plain = [ours.encode(text, add_special_tokens=False).ids for text in ("one", "two")]
        around = [[5] * first + ids + [0] * last for ids in plain]
        assert ours.encode("one").ids == around[0]
        assert ours.encode("one", "two").ids == around[0] + around[1]

    def test_added_tokens(self, tmp_path: Path) -> None:
        metadata = tables(tmp_path / "t", "qwen2")
        metadata[KEY + "tokens"] += ["<think>", "<｜bar｜>"]
        metadata[KEY + "token_type"] += [USER_DEFINED, CONTROL]
        size = len(metadata[KEY + "tokens"])
        ours = Tokenizer.from_str(read(metadata).tokenizer)
        ids = ours.encode("<think>a<｜bar｜>").ids
        assert ids[0] == size - 2 and ids[-1] == size - 1
        assert ours.decode(ids) == "<think>a"

    def test_special_tokens_and_template(self, tmp_path: Path) -> None:
        metadata = tables(tmp_path / "t", "qwen2", padding_token_id=3, unknown_token_id=2)
        found = read(metadata | {"tokenizer.chat_template": "{{ messages }}"})
        assert found.special_tokens == {"eos": 0, "pad": 3, "unk": 2}
        assert found.chat_template == "{{ messages }}"


class TestSentencePiece:
    def tables(self, **options: Any) -> tuple[dict[str, Any], sentencepiece.SentencePieceProcessor]:
        """A small SentencePiece model of Llama's kind, as llama.cpp's converter stores it, and its own encoder."""
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text.replace("\n", " ") for text in TEXTS if text] * 3),
            model_writer=made,
            model_type="bpe",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            vocab_size=500,
            character_coverage=0.98,
            minloglevel=2,
            **options,
        )
        theirs = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
        ids = range(theirs.vocab_size())
        kinds = [
            UNKNOWN if theirs.is_unknown(i) else CONTROL if theirs.is_control(i) else BYTE if theirs.is_byte(i) else 1
            for i in ids
        ]
        found = {
            "model": "llama",
            "tokens": [theirs.id_to_piece(i) for i in ids],
            "scores": [theirs.get_score(i) for i in ids],
            "token_type": kinds,
            "add_bos_token": False,
            "unknown_token_id": theirs.unk_id(),
            "bos_token_id": theirs.bos_id(),
        }
        return {KEY + key: value for key, value in found.items()}, theirs

    @pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"add_dummy_prefix": False}])
    def test_against_sentencepiece(self, options: dict[str, Any]) -> None:
        metadata, theirs = self.tables(**options)
        metadata[KEY + "add_space_prefix"] = options.get("add_dummy_prefix", True)
        ours = Tokenizer.from_str(read(metadata).tokenizer)
        for text in (*TEXTS, *MORE):
            ids = theirs.encode(text)
            assert ours.encode(text).ids == ids, text
            assert not options.get("byte_fallback") or ours.decode(ids) == theirs.decode(ids) == text

    def test_bos_goes_first_unless_the_file_says_otherwise(self) -> None:
        metadata, theirs = self.tables()
        del metadata[KEY + "add_bos_token"]
        ids = Tokenizer.from_str(read(metadata).tokenizer).encode("hello").ids
        assert ids == [theirs.bos_id(), *theirs.encode("hello")]

    def test_scores_are_missing(self) -> None:
        metadata, _ = self.tables()
        refused(metadata | {KEY + "scores": [0.0]}, "1 scores for 500 tokens")


def refused(metadata: dict[str, Any], mention: str) -> None:
    with pytest.raises(BadInput, match=mention) as error:
        read(metadata)
    assert "\n" not in str(error.value) and "m.gguf" in str(error.value)


@pytest.mark.parametrize(
    ("values", "mention"),
    [
        ({"model": "t5"}, "of kind 't5'"),
        ({"pre": "tekken"}, "cuts text as 'tekken'"),
        ({"pre": None}, "cuts text as None"),
        ({"tokens": []}, "0 tokens"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "1 of them different"),
        ({"tokens": ["a", 7]}, "a list of str was expected"),
        ({"token_type": [1]}, "and 1 types"),
        ({"merges": ["zz zz"]}, "damaged tokenizer"),
        ({"merges": ["a"]}, "damaged tokenizer"),
        ({"eos_token_id": 100_000}, "eos_token_id = 100000"),
        ({"eos_token_id": None, "add_eos_token": True}, "asks for eos"),
        ({"add_bos_token": 1}, "one bool was expected"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, values: dict[str, Any], mention: str) -> None:
    refused(tables(tmp_path / "t", **({"pre": "gpt-2"} | values)), mention)


def test_no_tokenizer() -> None:
    assert read_gguf_text(GgufFile(Path("m.gguf"), {}, {}, {})) is None
