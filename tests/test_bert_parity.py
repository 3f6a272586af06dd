"""BERT, RoBERTa and DistilBERT with every head give what the transformers library gives for the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from tests.checkpoints import write_json
from tests.parity import LIMIT, batches, check, ours, randomized, relative_rms

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
CONFIGS: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": SIZES | {"type_vocab_size": 1, "pad_token_id": 1},
    "DistilBert": DISTIL | {"activation": "relu"},
}
HEADS = ("Model", "ForMaskedLM", "ForQuestionAnswering", "ForSequenceClassification")
TASKS = {"Model": "features", "ForMaskedLM": "fill-mask", "ForQuestionAnswering": "answer-span"}
SEGMENTS = {"Bert": ("token_type_ids",), "Roberta": (), "DistilBert": ()}


def build(family: str, head: str, **changes: Any) -> Any:
    config = getattr(transformers, f"{family}Config")(**CONFIGS[family], **changes)
    return randomized(getattr(transformers, family + head)(config))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
def test_outputs(tmp_path: Path, family: str, head: str) -> None:
    theirs = build(family, head) if head == "ForQuestionAnswering" else build(family, head, num_labels=3)
    found = ours(theirs, tmp_path)
    assert found.task.name == TASKS.get(head, "classify")
    for batch in batches(99, pad=theirs.config.pad_token_id):
        check(found, theirs, batch, *SEGMENTS[family])


def test_next_sentence(tmp_path: Path) -> None:
    theirs = build("Bert", "ForNextSentencePrediction")
    found = ours(theirs, tmp_path)
    assert found.task.name == "next-sentence"
    for batch in batches(99):
        check(found, theirs, batch, "token_type_ids")


@pytest.mark.parametrize("family", CONFIGS)
def test_multiple_choice(tmp_path: Path, family: str) -> None:
    """Choices of one length, for theirs takes padding on the left for tokens."""
    theirs = build(family, "ForMultipleChoice")
    found = ours(theirs, tmp_path)
    assert found.task.inputs[0].dims == ("batch", "choices", "sequence")
    ids = torch.randint(4, 99, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids % 2}
    wanted = ("input_ids", "attention_mask", *SEGMENTS[family])
    with torch.no_grad():
        expected = theirs(**{name: given[name] for name in wanted}).logits
        assert relative_rms(found.module(*(given[spec.name] for spec in found.task.inputs)), expected) < LIMIT


def test_a_pretrained_model_scores_masked_tokens(tmp_path: Path) -> None:
    """Its next-sentence head and pooler are left out."""
    theirs = build("Bert", "ForPreTraining")
    found = ours(theirs, tmp_path)
    assert found.task.name == "fill-mask"
    for batch in batches(99):
        with torch.no_grad():
            result = found.module(batch.input_ids, batch.attention_mask, batch.token_type_ids)
            for row, text in batch.texts():
                expected = theirs(**text).prediction_logits[0]
                assert relative_rms(result[row][batch.attention_mask[row].bool()], expected) < LIMIT


def changed(folder: Path, **values: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | values)
    return folder


@pytest.mark.parametrize(
    ("values", "mention"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "'TokenClassification'"),
        ({"architectures": "BertModel"}, "architectures"),
        ({"architectures": [7]}, "architectures"),
        ({"architectures": ["BertForQuestionAnswering"]}, "lacks 2 tensors"),
        ({"tie_word_embeddings": False}, "unties"),
        ({"is_decoder": True}, "is_decoder"),
        ({"id2label": {}, "architectures": ["BertForSequenceClassification"]}, "num_labels"),
    ],
)
def test_a_head_that_cannot_be_read(tmp_path: Path, values: dict[str, Any], mention: str) -> None:
    build("Bert", "ForMaskedLM").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=mention):
        load_checkpoint(changed(tmp_path, **values))


@pytest.mark.parametrize("values", [{"pad_token_id": -1}, {"pad_token_id": "1"}, {"pad_token_id": 39}])
def test_roberta_positions_that_leave_no_place(tmp_path: Path, values: dict[str, Any]) -> None:
    build("Roberta", "Model").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"pad_token_id|max_position_embeddings"):
        load_checkpoint(changed(tmp_path, **values))


def test_a_misnamed_head_tensor_is_named(tmp_path: Path) -> None:
    build("Roberta", "ForSequenceClassification").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["classifier.scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"classifier\.scale"):
        load_checkpoint(tmp_path)
