"""BERT, RoBERTa and DistilBERT with every head give what the transformers library gives for the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from tests.checkpoints import write_json
from tests.parity import LIMIT, Batch, batches, ours, randomized, relative_rms
from tests.tiny import CONFIG

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("Bert", SIZES, 0),
    "roberta": ("Roberta", SIZES | {"type_vocab_size": 1, "pad_token_id": 1}, 1),
    "distilbert": ("DistilBert", DISTIL, 0),
}
CLASSIFIERS = ("NextSentencePrediction", "SequenceClassification")


def build(family: str, head: str, **changes: Any) -> Any:
    prefix, sizes, _ = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(**sizes, **changes)
    name = f"{prefix}For{head}" if head else f"{prefix}Model"
    return randomized(getattr(transformers, name)(config))


def reference(model: Any, family: str, batch: Batch) -> Any:
    """Their outputs. Positions count tokens from the left edge there, so they are given."""
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if family == "bert":
        given |= {"token_type_ids": batch.token_type_ids, "position_ids": batch.position_ids}
    return model(**given)


def run(found: Checkpoint, batch: Batch) -> Any:
    return found.module(*(getattr(batch, spec.name) for spec in found.task.inputs))


def usable(family: str, batch: Batch, head: str) -> bool:
    """Theirs cannot do left padding where it reads position 0 as the first token, or counts positions over padding."""
    left = not bool(batch.attention_mask[:, 0].all())
    return not left or (family != "distilbert" and head not in CLASSIFIERS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["", "MaskedLM", "QuestionAnswering"])
def test_outputs_per_token(tmp_path: Path, family: str, head: str) -> None:
    theirs = build(family, head)
    found = ours(theirs, tmp_path)
    for batch in batches(99, pad=FAMILIES[family][2]):
        if not usable(family, batch, head):
            continue
        with torch.no_grad():
            results, expected = run(found, batch), reference(theirs, family, batch)
        results = results if isinstance(results, tuple) else (results,)
        for result, spec in zip(results, found.task.outputs, strict=True):
            assert relative_rms(result[batch.counts], expected[spec.name][batch.counts]) < LIMIT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", CLASSIFIERS)
def test_outputs_per_text(tmp_path: Path, family: str, head: str) -> None:
    if head == "NextSentencePrediction" and family != "bert":
        with pytest.raises(BadInput, match="lacks"):
            write_and_load(tmp_path, family, head)
        return
    theirs = build(family, head, num_labels=3) if head != "NextSentencePrediction" else build(family, head)
    found = ours(theirs, tmp_path)
    for batch in batches(99, pad=FAMILIES[family][2]):
        if usable(family, batch, head):
            with torch.no_grad():
                assert relative_rms(run(found, batch), reference(theirs, family, batch).logits) < LIMIT
