"""Texts to embeddings: order, padding on either side, truncation, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.model import LoadedModel, load
from onnxsmith.runtime.tokenize import TextEncoder
from tests.embedder import TEXTS, WIDTH, WORDS, embedder_model, write_embedder

EPSILON = np.finfo(np.float32).eps  # one rounding step of values near 1, as these are


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embed") / "a")


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(folder)


def ids(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


def test_the_embedding_is_the_models(model: LoadedModel) -> None:
    table = model.run({"input_ids": np.arange(13)[None], "attention_mask": np.ones((1, 13), np.int64)})["hidden"][0]
    expected = table[ids("[CLS]", "dog", "run", "##ning", "[SEP]")].mean(axis=0)
    np.testing.assert_allclose(model.embed(["dog running"])[0], expected, rtol=0, atol=EPSILON)


def test_padding_side_and_batching_change_nothing(model: LoadedModel) -> None:
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    assert alone.shape == (len(TEXTS), WIDTH)
    assert alone.dtype == np.float32
    assert len(np.unique(alone.round(3), axis=0)) == len(TEXTS)
    for padding in ("right", "left"):
        for batch_size in (1, 2, 32):
            rows = model.embed(TEXTS, padding=padding, batch_size=batch_size)  # type: ignore[arg-type]
            np.testing.assert_allclose(rows, alone, rtol=0, atol=EPSILON, err_msg=f"{padding} {batch_size}")


def test_batches_are_of_similar_length(model: LoadedModel) -> None:
    shapes = []

    def run(feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        shapes.append(feeds["input_ids"].shape)
        return model.run(feeds)

    model.embed(TEXTS, batch_size=2, run=run)
    assert shapes == [(2, 4), (2, 6), (1, 11)]


def test_padding_by_hand(folder: Path) -> None:
    encoder = TextEncoder(folder / "tokenizer.json")
    tokens = encoder.encode(["cat", "red cat"])
    right, left = encoder.pad(tokens), encoder.pad(tokens, "left")
    assert right["input_ids"][0].tolist() == ids("[CLS]", "cat", "[SEP]", "[PAD]")
    assert right["attention_mask"][0].tolist() == [1, 1, 1, 0]
    assert left["input_ids"][0].tolist() == ids("[PAD]", "[CLS]", "cat", "[SEP]")
    assert left["position_ids"][0].tolist() == [0, 0, 1, 2]
    assert all(array.dtype == np.int64 and array.shape == (2, 4) for array in right.values())


def test_padding_comes_from_the_artifact(tmp_path: Path) -> None:
    shown = []

    def run(feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        shown.append(feeds["input_ids"][0].tolist())
        return model.run(feeds)

    pad = {"pad": ids("blue")[0]}
    model = load(write_embedder(tmp_path / "a", special_tokens=pad, padding_side="left"))
    model.embed(["cat", "red cat"], run=run)
    model.embed(["cat", "red cat"], run=run, padding="right")
    assert shown == [ids("blue", "[CLS]", "cat", "[SEP]"), ids("[CLS]", "cat", "[SEP]", "blue")]


def test_pairs_and_prompts(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "pairs.json"))
    encoder = TextEncoder(folder / "pairs.json", max_length=6)
    one, two = encoder.encode([("cat", "red dog"), "cat"])
    assert one.ids == ids("[CLS]", "cat", "[SEP]", "red", "dog", "[SEP]") and one.type_ids == [0, 0, 0, 1, 1, 1]
    assert two.type_ids == [0, 0, 0]
    assert encoder.pad([one, two])["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0] * 6]
    assert encoder.encode([("red cat dog", "fast")])[0].ids == ids("[CLS]", "red", "cat", "[SEP]", "fast", "[SEP]")
    assert encoder.encode(["cat"], add_special_tokens=False)[0].ids == ids("cat")
    with pytest.raises(BadInput, match="text 0: expected a string, found tuple"):
        encoder.encode([("cat", 3)])  # type: ignore[list-item]


def test_long_texts_are_cut(tmp_path: Path, model: LoadedModel) -> None:
    long = "cat " * 100
    np.testing.assert_allclose(model.embed([long]), model.embed(["cat " * 14]), rtol=0, atol=EPSILON)
    shorter = load(write_embedder(tmp_path / "a", max_length=5))
    np.testing.assert_allclose(shorter.embed([long]), model.embed(["cat " * 3]), rtol=0, atol=EPSILON)


@pytest.mark.parametrize("texts", [[], (), "red cat"])
def test_no_texts(model: LoadedModel, texts: Any) -> None:
    with pytest.raises(BadInput, match="at least one text"):
        model.embed(texts)


def test_what_is_no_text(model: LoadedModel) -> None:
    with pytest.raises(BadInput, match="text 1: expected a string, found int"):
        model.embed(["cat", 3])  # type: ignore[list-item]


def test_a_text_without_tokens(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "a")
    tokenizer = Tokenizer(WordLevel({"cat": 0}, unk_token="cat"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(BadInput, match="text 1: the tokenizer finds no token in ' '"):
        load(folder).embed(["cat", " "])


def test_wrong_usage(model: LoadedModel) -> None:
    with pytest.raises(BadUsage, match="unknown padding 'middle'"):
        model.embed(["cat"], padding="middle")  # type: ignore[arg-type]
    with pytest.raises(BadUsage, match="batch_size must be at least 1"):
        model.embed(["cat"], batch_size=0)


def test_models_that_cannot_embed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no tokenizer beside this model"):
        load(write_embedder(tmp_path / "a", tokenizer=None)).embed(["cat"])
    with pytest.raises(BadInput, match="expected a model of task embed, found features"):
        load(write_embedder(tmp_path / "b", task="features")).embed(["cat"])
    strange = embedder_model(rename={"attention_mask": "lengths"})
    with pytest.raises(BadInput, match="no text gives the input lengths"):
        load(write_embedder(tmp_path / "c", strange)).embed(["cat"])
    broken = write_embedder(tmp_path / "d")
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"not a tokenizer\.json"):
        load(broken).embed(["cat"])
