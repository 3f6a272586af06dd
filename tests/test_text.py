"""The text side of checkpoints: tokenizers against those of transformers, special tokens, templates, bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.text import TextFiles, check_vocabulary, read_text
from tests.checkpoints import write_checkpoint, write_json
from tests.texts import BERT_TOKENS, GPT2_TOKENS, PAIRS, ROBERTA_TOKENS, TEXTS, byte_level, sentence_pieces, word_piece

BERT = {"model_type": "bert"}


def read(folder: Path, config: dict[str, Any] = BERT) -> TextFiles:
    found = read_text(folder, config)
    assert found is not None
    return found


def refused(folder: Path, match: str, config: dict[str, Any] = BERT) -> None:
    with pytest.raises(BadInput, match=match) as error:
        read_text(folder, config)
    assert "\n" not in str(error.value)


def same_ids(found: TextFiles, reference: Any) -> None:
    """Token ids of every text and pair are those of the reference, and segment ids where the model takes them."""
    ours = Tokenizer.from_str(found.tokenizer)
    segments = "token_type_ids" in reference.model_input_names
    for text in TEXTS:
        assert ours.encode(text).ids == reference(text)["input_ids"], text
    for pair in PAIRS:
        theirs = reference(*pair, return_token_type_ids=True)
        assert ours.encode(*pair).ids == theirs["input_ids"], pair
        assert not segments or ours.encode(*pair).type_ids == theirs["token_type_ids"], pair


class TestWordPiece:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"do_lower_case": False},
            {"strip_accents": False},
            {"do_lower_case": False, "strip_accents": True},
            {"tokenize_chinese_chars": False},
        ],
    )
    def test_against_transformers(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        folder = word_piece(tmp_path / "c", lower=settings.get("do_lower_case", True))
        write_json(folder / "tokenizer_config.json", settings)
        found = read(folder)
        same_ids(found, transformers.BertTokenizer.from_pretrained(folder))
        assert found.special_tokens == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}

    def test_against_the_first_bert_in_python(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "c")
        same_ids(read(folder), BertTokenizerLegacy(str(folder / "vocab.txt")))

    def test_added_tokens_keep_their_ids(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "c")
        size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
        added = {str(i): {"content": token, "special": True} for i, token in enumerate(BERT_TOKENS)}
        added |= {str(size + 1): {"content": "[B]"}, str(size): {"content": "[A]"}}
        write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added})
        tokenizer = Tokenizer.from_str(read(folder).tokenizer)
        assert tokenizer.encode("[A]hello[B]").ids[1] == size
        assert tokenizer.encode("[A]hello[B]").ids[-2] == size + 1
        write_json(folder / "tokenizer_config.json", {})
        write_json(folder / "added_tokens.json", {"[A]": size, "[MASK]": 4})
        assert Tokenizer.from_str(read(folder).tokenizer).encode("[A]hello").ids[1] == size
        added[str(size + 7)] = {"content": "[C]"}
        write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added})
        refused(folder, rf"adds the token '\[C\]' as {size + 7}, but its place is {size + 2}")


class TestByteLevel:
    def test_gpt2(self, tmp_path: Path) -> None:
        folder = byte_level(tmp_path / "c", GPT2_TOKENS)
        found = read(folder, {"model_type": "gpt2"})
        same_ids(found, transformers.GPT2Tokenizer.from_pretrained(folder))
        assert found.special_tokens == {"bos": 0, "eos": 0, "unk": 0}

    MASK = {"content": "<mask>", "lstrip": True, "special": True, "__type": "AddedToken"}

    @pytest.mark.parametrize("kind", ["roberta", "bart"])
    @pytest.mark.parametrize(
        "settings",
        [
            {"mask_token": MASK},
            {"mask_token": MASK, "add_prefix_space": True},
            {"mask_token": "<mask>", "added_tokens_decoder": {"4": MASK}},
        ],
    )
    def test_roberta_and_bart(self, tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
        folder = byte_level(tmp_path / "c", ROBERTA_TOKENS)
        write_json(folder / "tokenizer_config.json", settings)
        found = read(folder, {"model_type": kind})
        same_ids(found, transformers.RobertaTokenizer.from_pretrained(folder))
        assert found.special_tokens == {"bos": 0, "eos": 2, "sep": 2, "cls": 0, "unk": 3, "pad": 1, "mask": 4}

    def test_decoding_gives_the_text_back(self, tmp_path: Path) -> None:
        tokenizer = Tokenizer.from_str(read(byte_level(tmp_path / "c", GPT2_TOKENS), {"model_type": "gpt2"}).tokenizer)
        for text in TEXTS:
            assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


class TestSentencePiece:
    def test_t5(self, tmp_path: Path) -> None:
        path = sentence_pieces(tmp_path / "spiece.model", pad_id=0, eos_id=1, unk_id=2)
        found = read(tmp_path, {"model_type": "t5"})
        same_ids(found, transformers.T5Tokenizer.from_pretrained(tmp_path))
        assert found.special_tokens == {"eos": 1, "unk": 2, "pad": 0}
        tokenizer = Tokenizer.from_str(found.tokenizer)
        own = sentencepiece.SentencePieceProcessor(model_file=str(path))
        assert any(2 in own.encode(text) for text in TEXTS)
        assert [tokenizer.encode(text).ids[:-1] for text in TEXTS] == own.encode(list(TEXTS))
        assert tokenizer.token_to_id("<extra_id_0>") == own.get_piece_size() + 99

    @pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
    def test_marian(self, tmp_path: Path) -> None:
        path = sentence_pieces(tmp_path / "source.spm", eos_id=0, unk_id=1)
        sentence_pieces(tmp_path / "target.spm", eos_id=0, unk_id=1)
        own = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces = sorted(own.id_to_piece(list(range(2, own.get_piece_size()))))
        tokens = ["</s>", "<unk>", *pieces, "▁Ziel", ">>de<<", "<pad>"]
        write_json(tmp_path / "vocab.json", {token: i for i, token in enumerate(tokens)})
        found = read(tmp_path, {"model_type": "marian"})
        reference = transformers.MarianTokenizer.from_pretrained(tmp_path)
        same_ids(found, reference)
        assert found.special_tokens == {"eos": 0, "unk": 1, "pad": len(tokens) - 1}
        tokenizer = Tokenizer.from_str(found.tokenizer)
        coded = ">>de<< Hello world"
        assert tokenizer.encode(coded).ids == reference(coded)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(coded).ids) == ">>de<< Hello world"

    def test_damaged(self, tmp_path: Path) -> None:
        whole = sentence_pieces(tmp_path / "spiece.model", pad_id=0, eos_id=1, unk_id=2).read_bytes()
        for contents in (b"", b"text\n", whole[: len(whole) // 2], whole[:-1]):
            (tmp_path / "spiece.model").write_bytes(contents)
            refused(tmp_path, r"spiece\.model is no SentencePiece model", {"model_type": "t5"})

    def test_kinds_that_cannot_be_read(self, tmp_path: Path) -> None:
        sentence_pieces(tmp_path / "spiece.model", model_type="bpe")
        refused(tmp_path, r"spiece\.model is no plain Unigram model", {"model_type": "t5"})
        refused(tmp_path, r"spiece\.model is a SentencePiece model .*save_pretrained", {"model_type": "llama"})
        sentence_pieces(tmp_path / "spiece.model", eos_id=-1)
        refused(tmp_path, r"spiece\.model lacks the eos token '</s>'", {"model_type": "t5"})
        write_json(tmp_path / "tokenizer_config.json", {"extra_ids": 1e9})
        refused(tmp_path, r"extra_ids is 1000000000\.0", {"model_type": "t5"})
        (tmp_path / "spiece.model").rename(tmp_path / "source.spm")
        write_json(tmp_path / "vocab.json", {"</s>": 0, "<unk>": 2})
        refused(tmp_path, r"vocab\.json lacks '<unk>' or has gaps", {"model_type": "marian"})


@pytest.mark.parametrize(
    "model", [WordPiece({"[UNK]": 0}, unk_token="[UNK]"), BPE({"a": 0}, []), Unigram([("a", 0.0)], unk_id=0)]
)
def test_tokenizer_json_is_taken_as_it_is(tmp_path: Path, model: Any) -> None:
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").write_text("ignored")
    assert read(tmp_path).tokenizer == (tmp_path / "tokenizer.json").read_text(encoding="utf-8")


def words(folder: Path, *tokens: str) -> Path:
    """A folder with the tokenizer.json of a vocabulary of whole words."""
    folder.mkdir(exist_ok=True)
    Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0])).save(
        str(folder / "tokenizer.json")
    )
    return folder


class TestSpecialTokens:
    LLAMA = {"model_type": "llama"}

    def test_names_come_as_text_or_objects(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u", "b", "e", "p")
        write_json(folder / "special_tokens_map.json", {"eos_token": "e", "bos_token": "e", "pad_token": "absent"})
        write_json(folder / "tokenizer_config.json", {"bos_token": {"content": "b"}, "unk_token": None})
        assert read(folder, self.LLAMA).special_tokens == {"bos": 1, "eos": 2}

    def test_configs_say_what_the_tokenizer_does_not(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u", "b", "e", "p")
        write_json(folder / "tokenizer_config.json", {"bos_token": None})
        write_json(folder / "generation_config.json", {"eos_token_id": [2, 3]})
        config = self.LLAMA | {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 3}
        assert read(folder, config).special_tokens == {"eos": 2, "pad": 3}

    def test_what_is_no_token(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u")
        write_json(folder / "tokenizer_config.json", {"eos_token": 7})
        refused(folder, "eos_token is 7; a token or an object")

    def test_padding_side(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u")
        assert read(folder).padding_side == "right"
        write_json(folder / "tokenizer_config.json", {"padding_side": "left"})
        assert read(folder).padding_side == "left"
        write_json(folder / "tokenizer_config.json", {"padding_side": "top"})
        refused(folder, "padding_side 'top'; expected right or left")


class TestChatTemplate:
    @pytest.mark.parametrize(
        "value", ["text", [{"name": "tool", "template": "no"}, {"name": "default", "template": "text"}]]
    )
    def test_in_tokenizer_config(self, tmp_path: Path, value: object) -> None:
        folder = words(tmp_path / "c", "u")
        write_json(folder / "tokenizer_config.json", {"chat_template": value})
        assert read(folder).chat_template == "text"

    def test_files_of_their_own_come_first(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u")
        write_json(folder / "tokenizer_config.json", {"chat_template": "config"})
        write_json(folder / "chat_template.json", {"chat_template": "json"})
        assert read(folder).chat_template == "json"
        (folder / "chat_template.jinja").write_text("jinja")
        assert read(folder).chat_template == "jinja"

    def test_what_is_no_template(self, tmp_path: Path) -> None:
        folder = words(tmp_path / "c", "u")
        assert read(folder).chat_template is None
        write_json(folder / "tokenizer_config.json", {"chat_template": 3})
        refused(folder, "a chat_template that is a int")


class TestVocabularySize:
    def test_a_tokenizer_larger_than_the_model(self, tmp_path: Path) -> None:
        folder = write_checkpoint(tmp_path / "c")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens(["[NEW]"])
        tokenizer.save(str(folder / "tokenizer.json"))
        with pytest.raises(BadInput, match="has ids up to 128, the model's vocab_size is 128; take the tokenizer"):
            load_checkpoint(folder)

    def test_special_tokens_count(self) -> None:
        text = TextFiles(Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str(), special_tokens={"pad": 9})
        check_vocabulary(text, 10)
        check_vocabulary(text, None)
        with pytest.raises(BadInput, match="up to 9, the model's vocab_size is 9"):
            check_vocabulary(text, 9)


class TestBadFiles:
    @pytest.mark.parametrize(
        "text",
        ["", "{", "[1]", '{"model": {"type": "Other"}}', '{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}'],
    )
    def test_tokenizer_json(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "tokenizer.json").write_text(text)
        refused(tmp_path, r"tokenizer\.json is no tokenizer\.json that can be read")

    def test_no_utf8(self, tmp_path: Path) -> None:
        for name in ("merges.txt", "vocab.txt", "tokenizer.json"):
            (tmp_path / name).write_bytes(b"\xff\xfe")
            (tmp_path / "vocab.json").write_text('{"a": 0}')
            refused(tmp_path, f"{name} is not readable as UTF-8", {"model_type": "gpt2"})

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", r"vocab\.txt is empty"),
            ("\n\n", r"vocab\.txt is empty"),
            ("[PAD]\n[UNK]\nx\n[PAD]\n", r"has '\[PAD\]' on the lines 1 and 4"),
            ("a\nb\n", r"lacks the unk token '\[UNK\]'"),
        ],
    )
    def test_vocab_txt(self, tmp_path: Path, text: str, match: str) -> None:
        (tmp_path / "vocab.txt").write_text(text)
        refused(tmp_path, match)

    @pytest.mark.parametrize(
        ("vocabulary", "merges", "match"),
        [
            ({"a": 0, "b": 1}, "a b", r"merges\.txt has the line 'a b', but vocab\.json has no 'ab'"),
            ({"a": 0, "ab": 1}, "a b", r"merges\.txt has the line 'a b', but vocab\.json has no 'b'"),
            ({"a": 0, "b": 1}, "#version: 0.2\na b c", "has the line 'a b c'; two tokens"),
            ({"a": 0, "b": 0}, "", "must give every token an id of its own"),
            ({"a": "0"}, "", "must give every token an id of its own"),
            ({}, "", "must give every token an id of its own"),
            ([], "", r"vocab\.json holds a list"),
        ],
    )
    def test_merges_txt(self, tmp_path: Path, vocabulary: object, merges: str, match: str) -> None:
        write_json(tmp_path / "vocab.json", vocabulary)
        (tmp_path / "merges.txt").write_text(merges)
        refused(tmp_path, match, {"model_type": "gpt2"})

    def test_settings_of_a_wrong_type(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "c")
        write_json(folder / "tokenizer_config.json", {"do_lower_case": "yes"})
        refused(folder, r"tokenizer_config\.json does not fit")

    def test_kinds_that_need_a_tokenizer_json(self, tmp_path: Path) -> None:
        folder = byte_level(tmp_path / "c", GPT2_TOKENS)
        refused(folder, "merges.txt of a qwen2 tokenizer .*save_pretrained", {"model_type": "qwen2"})

    def test_no_tokenizer_at_all(self, tmp_path: Path) -> None:
        assert read_text(tmp_path, BERT) is None
