"""Encoder-decoders beside their references: the same weights give the same logits, however texts are padded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.checkpoint import load_checkpoint
from onnxsmith.models.positions import RelativeBias
from tests.parity import LIMIT, Batch, batches, check, randomized, relative_rms

transformers = pytest.importorskip("transformers")

VOCABULARY = 64
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 48,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 32,
}
MARIAN = BART | {"pad_token_id": 0, "decoder_start_token_id": 0, "activation_function": "swish"}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
}
GATED = T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def bart(**changes: Any) -> Any:
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**BART | changes))


def marian(**changes: Any) -> Any:
    return transformers.MarianMTModel(transformers.MarianConfig(**MARIAN | changes))


def t5(config: dict[str, Any]) -> Any:
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**config))


MODELS = {
    "bart": bart,
    "bart scaled": lambda: bart(scale_embedding=True, activation_function="relu"),
    "marian": lambda: marian(scale_embedding=True),
    "marian unscaled": marian,
    "t5": lambda: t5(T5),
    "t5 v1.1": lambda: t5(GATED),
}


def pairs() -> Iterator[tuple[Batch, Batch]]:
    """Sources and targets of different lengths, with every padding of one beside every padding of the other."""
    for source in batches(VOCABULARY, lengths=(9, 5, 1)):
        for target in batches(VOCABULARY, lengths=(7, 1, 4)):
            if len(source.input_ids) == len(target.input_ids):
                yield source, target


def rows(source: Batch, target: Batch) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Every pair of texts alone, without padding."""
    for i in range(len(source.input_ids)):
        yield (
            i,
            source.input_ids[i][source.attention_mask[i] == 1][None],
            target.input_ids[i][target.attention_mask[i] == 1][None],
        )


def compare(theirs: Any, found: nn.Module) -> None:
    """Ours on padded batches against theirs on each pair alone, where no padding can matter."""
    for source, target in pairs():
        with torch.no_grad():
            logits = found(source.input_ids, source.attention_mask, target.input_ids, target.attention_mask)
            for i, ids, decoder_ids in rows(source, target):
                expected = theirs(input_ids=ids, decoder_input_ids=decoder_ids).logits[0]
                assert relative_rms(logits[i][target.attention_mask[i] == 1], expected) < LIMIT


def written(theirs: Any, folder: Path) -> Any:
    """The model with random weights, a biased head where it can have one, and as it is read back from ``folder``."""
    theirs = randomized(theirs)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias.copy_(torch.linspace(-1, 1, VOCABULARY)[None])
    theirs.save_pretrained(folder)
    return type(theirs).from_pretrained(folder).eval()  # Marian's sines are computed anew


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_logits(tmp_path: Path, name: str) -> None:
    theirs = written(MODELS[name](), tmp_path / "c")
    compare(theirs, load_checkpoint(tmp_path / "c").module)


def test_a_classifier_reads_the_last_end_token(tmp_path: Path) -> None:
    config = transformers.BartConfig(**BART, num_labels=4)
    theirs = written(transformers.BartForSequenceClassification(config), tmp_path / "c")
    found = load_checkpoint(tmp_path / "c")
    assert found.task.name == "classify"
    for batch in batches(VOCABULARY, lengths=(9, 5, 2)):
        ids = batch.input_ids
        for row, mask in zip(ids, batch.attention_mask, strict=True):
            places = mask.nonzero()[:, 0]
            row[places[-1]] = row[places[len(places) // 2]] = 2
        ids[batch.attention_mask == 0] = 2  # what stands in the padding must not matter
        with torch.no_grad():
            logits = found.module(ids, batch.attention_mask)
            for i, mask in enumerate(batch.attention_mask == 1):
                assert relative_rms(logits[i], theirs(input_ids=ids[i][mask][None]).logits[0]) < LIMIT


def test_spans(tmp_path: Path) -> None:
    theirs = written(transformers.BartForQuestionAnswering(transformers.BartConfig(**BART)), tmp_path / "c")
    found = load_checkpoint(tmp_path / "c")
    assert found.task.name == "answer-span"
    for batch in batches(VOCABULARY):
        check(found, theirs, batch)


@pytest.mark.parametrize("config", [T5, GATED], ids=["t5", "t5 v1.1"])
def test_a_t5_encoder_alone(tmp_path: Path, config: dict[str, Any]) -> None:
    theirs = written(transformers.T5EncoderModel(transformers.T5Config(**config)), tmp_path / "c")
    found = load_checkpoint(tmp_path / "c")
    assert found.task.name == "encoder"
    for batch in batches(VOCABULARY):
        check(found, theirs, batch)


class TestTies:
    """One table under several names, as older checkpoints have it, and one that is no longer the same."""

    NAMES = {
        "bart": ("model.shared.weight", "model.encoder.embed_tokens.weight", "lm_head.weight"),
        "marian": ("model.shared.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
        "t5": ("shared.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    }

    @pytest.mark.parametrize("name", NAMES)
    def test_repeated(self, tmp_path: Path, name: str) -> None:
        first, *others = self.NAMES[name]
        theirs = written(MODELS[name](), tmp_path / "c")
        rewrite(tmp_path / "c", lambda found: found | {other: found[first].clone() for other in others})
        compare(theirs, load_checkpoint(tmp_path / "c").module)

    @pytest.mark.parametrize("name", NAMES)
    def test_different(self, tmp_path: Path, name: str) -> None:
        first, *_, last = self.NAMES[name]
        written(MODELS[name](), tmp_path / "c")
        rewrite(tmp_path / "c", lambda found: found | {last: found[first] + 1})
        with pytest.raises(BadInput, match=f"{re.escape(first)}.*for one place") as error:
            load_checkpoint(tmp_path / "c")
        assert last in str(error.value)

    def test_a_t5_head_of_its_own(self, tmp_path: Path) -> None:
        """As published: version 1.1 says that nothing is tied, and its head is another matrix."""
        theirs = written(t5(GATED), tmp_path / "c")
        head = torch.randn(VOCABULARY, GATED["d_model"], generator=torch.Generator().manual_seed(1))
        rewrite(tmp_path / "c", lambda found: found | {"lm_head.weight": head})
        config = tmp_path / "c" / "config.json"
        untied = json.loads(config.read_text()) | {"tie_word_embeddings": False}
        del untied["scale_decoder_outputs"]
        config.write_text(json.dumps(untied))
        theirs.lm_head.weight = nn.Parameter(head)
        assert theirs.shared.weight is not theirs.lm_head.weight
        compare(theirs, load_checkpoint(tmp_path / "c").module)


def test_the_plain_bart_generates_without_a_bias(tmp_path: Path) -> None:
    theirs = randomized(bart())
    theirs.model.save_pretrained(tmp_path / "c")
    compare(theirs, load_checkpoint(tmp_path / "c").module)


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize("buckets, farthest", [(32, 128), (8, 6), (32, 20)])
def test_buckets_of_relative_positions(both_sides: bool, buckets: int, farthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    ahead = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(ahead, both_sides, buckets, farthest)
    assert torch.equal(RelativeBias(2, buckets, farthest, both_sides=both_sides).buckets(ahead), expected)


@pytest.mark.parametrize(
    ("model", "change", "mention"),
    [
        ("bart", {"d_model": None}, "d_model"),
        ("bart", {"decoder_attention_heads": 5}, "24 does not divide into 5 heads"),
        ("bart", {"activation_function": "swishish"}, "swishish"),
        ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("bart", {"architectures": ["BartForCausalLM"]}, "BartForCausalLM"),
        ("bart", {"architectures": ["BartForSequenceClassification"], "eos_token_id": [2]}, "eos_token_id"),
        ("bart", {"encoder_layers": 1}, "encoder.layers.1"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ("marian", {"decoder_vocab_size": 65}, "decoder_vocab_size"),
        ("t5", {"feed_forward_proj": "gated-swishish"}, "gated-swishish"),
        ("t5", {"feed_forward_proj": "gated-gelu"}, "feed_forward.gate"),
        ("t5", {"architectures": ["T5ForTokenClassification"]}, "T5ForTokenClassification"),
        ("t5", {"num_heads": 3}, "[15, 24]"),
        ("t5", {"tie_word_embeddings": False}, "head.weight"),
        ("t5", {"relative_attention_num_buckets": 2}, "2 buckets"),
        ("t5", {"relative_attention_max_distance": 4}, "distances up to 4"),
    ],
)
def test_bad_configs(tmp_path: Path, model: str, change: dict[str, Any], mention: str) -> None:
    MODELS[model]().save_pretrained(tmp_path / "c")
    config = tmp_path / "c" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(BadInput) as error:
        load_checkpoint(tmp_path / "c")
    assert mention in str(error.value)
    assert "\n" not in str(error.value)
