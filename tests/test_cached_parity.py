"""With a cache: the same as the transformers library with its own, and as our own run without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onnxsmith.models.bart import BartConfig, BartGenerator
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from onnxsmith.models.gpt import Gpt, GptConfig
from onnxsmith.models.heads import LanguageModel
from onnxsmith.models.parts import language_tasks, seq2seq_tasks
from onnxsmith.models.positions import POSITIONS
from onnxsmith.models.task import ExportTask
from onnxsmith.models.transformer import Transformer, TransformerConfig
from tests import test_decoder_parity, test_seq2seq
from tests.parity import LIMIT, Batch, batches, randomized, relative_rms

VOCABULARY = 64
DECODERS = [name for name in test_decoder_parity.VARIANTS if not name.endswith(("classes", "bare"))]
CHUNKS = ([1, 1, 1], [1, 2])


def test_every_family_is_covered() -> None:
    families = {name.split(",")[0] for name in DECODERS} | {name.split()[0] for name in test_seq2seq.MODELS}
    assert families == {"gpt2", "llama", "mistral", "qwen2", "bart", "marian", "t5"}


def empty(task: ExportTask, batch: int) -> list[Tensor]:
    """The cache of no tokens, as the task declares it."""
    own = [s for s in task.inputs if s.name.startswith("past_key_values") and ".encoder." not in s.name]
    sizes = {"batch": batch, "past_sequence": 0}
    return [torch.zeros([d if isinstance(d, int) else sizes[d] for d in spec.dims]) for spec in own]


def stepwise(
    module: nn.Module, task: ExportTask, ids: Tensor, mask: Tensor, chunks: list[int], *source: Tensor
) -> Tensor:
    """Logits [B, S, V] of ids and mask [B, S], fed in chunks; ``source`` is a mask and then keys and values."""
    cache, found, done = empty(task, len(ids)), [], 0
    memory = source[1:]
    for count in chunks:
        new = ids[:, done : done + count]
        done += count
        logits, *cache = module.step(new, mask[:, :done], *source[:1], *cache, *memory)  # type: ignore[operator]
        assert [t.shape for t in cache] == [(*shape_of(spec, len(ids), done),) for spec in task.outputs[1:]]
        found.append(logits)
    assert done == ids.shape[1]
    return torch.cat(found, 1)


def shape_of(spec: Any, batch: int, length: int) -> list[int]:
    sizes = {"batch": batch, "past_sequence + sequence": length}
    return [d if isinstance(d, int) else sizes[d] for d in spec.dims]


def continued(prompt: Batch, vocabulary: int, count: int = 3) -> tuple[Tensor, Tensor]:
    """The prompts, wherever their padding is, and then ``count`` tokens: ids and mask [B, S]."""
    rows = len(prompt.input_ids)
    more = torch.randint(4, vocabulary, (rows, count), generator=torch.Generator().manual_seed(3))
    return torch.cat((prompt.input_ids, more), 1), torch.cat((prompt.attention_mask, torch.ones_like(more)), 1)


def cached_reference(theirs: Any, ids: Tensor) -> Tensor:
    """Theirs on one text [1, S], a token at a time with its own cache -> logits [S, V]"""
    cache, found = None, []
    for place in range(ids.shape[1]):
        result = theirs(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        found.append(result.logits)
    return torch.cat(found, 1)[0]


def check_decoder(module: nn.Module, task: ExportTask, vocabulary: int, theirs: Any = None) -> None:
    """Padded prompts and what follows them, in chunks, against each text alone and whole, by theirs with its cache."""
    for prompt in batches(vocabulary):
        ids, mask = continued(prompt, vocabulary)
        for chunks in CHUNKS:
            found = stepwise(module, task, ids, mask, [prompt.input_ids.shape[1], *chunks])
            for row, counts in enumerate(mask.bool()):
                text = ids[row, counts][None]
                assert relative_rms(found[row, counts], module(text, torch.ones_like(text))[0]) < LIMIT
                if theirs is not None and chunks is CHUNKS[0]:
                    assert relative_rms(found[row, counts], cached_reference(theirs, text)) < LIMIT


@pytest.mark.parametrize("variant", DECODERS)
def test_decoders(tmp_path: Path, variant: str) -> None:
    theirs = test_decoder_parity.build(variant)
    theirs.save_pretrained(tmp_path)
    found = load_checkpoint(tmp_path)
    with torch.no_grad():
        check_decoder(found.module, found.for_task("causal-lm-with-past").task, 99, theirs)


@pytest.mark.parametrize("kind", POSITIONS)
def test_decoders_of_all_positions(kind: str) -> None:
    sizes = GptConfig(VOCABULARY, 32, 2, 4, 40, positions=kind)
    model = randomized(LanguageModel(Gpt(sizes)))
    with torch.no_grad():
        check_decoder(model, tasks_of(sizes)["causal-lm-with-past"], VOCABULARY)


def tasks_of(sizes: Any) -> dict[str, ExportTask]:
    if isinstance(sizes, GptConfig):
        found = language_tasks(sizes.vocab_size, sizes.max_position_embeddings, sizes.cache)
    else:
        found = seq2seq_tasks(sizes.vocab_size, sizes.d_model, sizes.cache)
    return {task.name: task for task in found}


def cached_translation(theirs: Any, source: Tensor, target: Tensor) -> Tensor:
    """Theirs on one pair [1, S] and [1, T], a token of the target at a time with its own cache -> logits [T, V]"""
    cache, found = None, []
    memory = theirs.get_encoder()(input_ids=source)
    for place in range(target.shape[1]):
        step = target[:, place : place + 1]
        result = theirs(encoder_outputs=memory, decoder_input_ids=step, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        found.append(result.logits)
    return torch.cat(found, 1)[0]


def check_encoder_decoder(module: Any, task: ExportTask, theirs: Any = None) -> None:
    for source, prompt in test_seq2seq.pairs():
        ids, mask = continued(prompt, VOCABULARY)
        keys_values = module.source(source.input_ids, source.attention_mask)
        whole = module(source.input_ids, source.attention_mask, ids, mask)
        memory = module.encode(source.input_ids, source.attention_mask)
        assert relative_rms(module.read(ids, mask, source.attention_mask, memory), whole) < LIMIT
        for chunks in CHUNKS:
            steps = [prompt.input_ids.shape[1], *chunks]
            found = stepwise(module, task, ids, mask, steps, source.attention_mask, *keys_values)
            assert relative_rms(found[mask == 1], whole[mask == 1]) < LIMIT
            if theirs is None or chunks is not CHUNKS[0]:
                continue
            for row, counts in enumerate(mask.bool()):
                text = source.input_ids[row, source.attention_mask[row] == 1][None]
                expected = cached_translation(theirs, text, ids[row, counts][None])
                assert relative_rms(found[row, counts], expected) < LIMIT


@pytest.mark.parametrize("name", test_seq2seq.MODELS)
def test_encoder_decoders(tmp_path: Path, name: str) -> None:
    theirs = test_seq2seq.written(test_seq2seq.MODELS[name](), tmp_path / "c")
    found: Checkpoint = load_checkpoint(tmp_path / "c")
    with torch.no_grad():
        check_encoder_decoder(found.module, found.for_task("decoder-with-past").task, theirs)


@pytest.mark.parametrize("kind", ["rotary", "alibi", "relative"])
def test_barts_of_other_positions(kind: str) -> None:
    sizes = BartConfig(**test_seq2seq.BART, positions=kind)
    model = randomized(BartGenerator(sizes))
    with torch.no_grad():
        check_encoder_decoder(model, tasks_of(sizes)["decoder-with-past"])


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("kind", POSITIONS)
def test_transformers_of_all_positions(kind: str, pre_norm: bool) -> None:
    sizes = TransformerConfig(VOCABULARY, 32, 2, 4, 40, pre_norm=pre_norm, positions=kind, length=40)
    model = randomized(Transformer(sizes))
    with torch.no_grad():
        check_encoder_decoder(model, tasks_of(sizes)["decoder-with-past"])
