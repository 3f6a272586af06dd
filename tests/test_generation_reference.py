"""Generated tokens are those of the transformers library, for prompts of different lengths padded on either side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.errors import BadInput
from onnxsmith.runtime.model import LoadedModel
from tests.generation import BOS, DECODERS, ENCODER_DECODERS, EOS, compiled, folders, ours, padded, reference, rows_of

MODELS = (*DECODERS, *ENCODER_DECODERS)
# Not those of a window of 3: texts that permute the same runs of tokens have equal scores there.
SEARCHED = [name for name in MODELS if name != "mistral"]
LENGTHS = (9, 5, 1, 7)
BEAMS = {"num_beams": 4}
SEARCHES: tuple[dict[str, Any], ...] = (
    BEAMS,
    BEAMS | {"length_penalty": 2.0, "early_stopping": True, "num_return_sequences": 3},
    BEAMS | {"length_penalty": -0.5, "early_stopping": "never"},
    BEAMS | {"length_penalty": 1.5, "early_stopping": "never", "num_return_sequences": 4},
    {"num_beams": 2, "length_penalty": 0.0, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 9, "suppress_tokens": [7, 30]},
    {"begin_suppress_tokens": [9, 12, 33], "bad_words_ids": [[40], [12, 13], [55, 20, 21]]},
    {"forced_eos_token_id": EOS},
)


def check(name: str, model: LoadedModel | None = None, **settings: Any) -> list[tuple[int, ...]]:
    rows = rows_of(LENGTHS)
    expected = reference(name, rows, max_new_tokens=16, **settings)
    for side in ("left", "right"):
        ids, mask = padded(rows, side)
        found = (model or ours(name)).generate(ids, attention_mask=mask, max_new_tokens=16, **settings)
        assert list(found.sequences) == expected
    return expected


@pytest.mark.parametrize("name", MODELS)
def test_greedy(name: str) -> None:
    check(name)


@pytest.mark.parametrize("name", ["llama", "mistral", "t5", "bart", "marian"])
def test_a_cache_by_compilation(name: str) -> None:
    """In place, but for Marian, whose heads have a size that the kernel does not take."""
    model = compiled(name)
    assert model.generation.interface.in_place == (name != "marian")
    check(name, model)
    check(name, model, repetition_penalty=1.3)
    if name != "mistral":
        check(name, model, **BEAMS)
        check(name, model, **SEARCHES[1])


@pytest.mark.parametrize("settings", SEARCHES, ids=str)
@pytest.mark.parametrize("name", SEARCHED)
def test_beams(name: str, settings: dict[str, Any]) -> None:
    check(name, **settings)


@pytest.mark.parametrize("settings", CHANGES, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_changed_logits(name: str, settings: dict[str, Any]) -> None:
    check(name, **settings)


@pytest.mark.parametrize("settings", [*CHANGES, *SEARCHES[2:]], ids=str)
def test_beams_of_ranked_tokens(settings: dict[str, Any]) -> None:
    """The graph gives the best tokens alone wherever no more is done than to ban some."""
    model = compiled("bart")
    assert model.generation.interface.best is not None
    check("bart", model, **BEAMS | settings)


def test_a_forced_start() -> None:
    assert {row[0] for row in check("bart", forced_bos_token_id=11)} == {11}


def test_some_texts_end_early_and_others_do_not() -> None:
    """So that the comparisons above see rows leave a batch."""
    found = [row for name in SEARCHED for row in check(name) + check(name, **BEAMS)]
    lengths = set(map(len, found))
    assert max(lengths) == 16 and min(lengths) < 16
    assert len({id for row in found for id in row}) > 40


def test_several_end_tokens() -> None:
    rows = rows_of(LENGTHS)
    free = ours("llama").generate(rows, max_new_tokens=16).sequences
    ends = [EOS, free[0][3], free[1][5]]
    found = ours("llama").generate(rows, max_new_tokens=16, eos_token_id=ends)
    for row, whole in zip(found.sequences, free, strict=True):
        stop = next((n for n, id in enumerate(whole) if id in ends), len(whole) - 1)
        assert row == whole[: stop + 1]
    assert found.reasons[0] == "stop"


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_scores_of_beams(name: str) -> None:
    """The sum of a text's log probabilities over its length to the power of the penalty."""
    rows = rows_of((6,))
    result = reference_scores(name, rows)
    found = ours(name).generate(rows, max_new_tokens=8, num_beams=3, num_return_sequences=3, length_penalty=0.6)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, result, rtol=1e-5)


def reference_scores(name: str, rows: list[list[int]]) -> list[float]:
    import torch

    from tests.generation import theirs

    found = theirs(name).generate(
        input_ids=torch.tensor(rows),
        attention_mask=torch.ones(1, len(rows[0]), dtype=torch.int64),
        max_new_tokens=8,
        num_beams=3,
        num_return_sequences=3,
        length_penalty=0.6,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores: list[float] = found.sequences_scores.tolist()
    return scores


def test_a_batch_is_its_rows() -> None:
    rows = rows_of(LENGTHS)
    together = ours("llama").generate(rows, max_new_tokens=12)
    alone = [ours("llama").generate(row, max_new_tokens=12).sequences[0] for row in rows]
    assert list(together.sequences) == alone
    assert together.timing.prompt_tokens == sum(LENGTHS)
    assert together.timing.new_tokens == sum(map(len, alone))


def test_settings_of_the_checkpoint_hold() -> None:
    """BART's forced end is in its config, and the id that starts a target too."""
    defaults = ours("bart").generation.defaults
    assert (defaults.eos_token_id, defaults.decoder_start_token_id, defaults.forced_eos_token_id) == ((EOS,), 0, (EOS,))
    assert ours("gpt2").generation.defaults.bos_token_id == BOS


def test_two_graphs_in_one_folder(tmp_path: Path) -> None:
    """As a compiled encoder-decoder's manifest records them."""
    parts = folders("t5")[1]
    manifest = json.loads((parts / "decoder" / "onnxsmith.json").read_text())
    taken = [entry["name"] for entry in manifest["inputs"] if entry["name"].startswith("past_key_values")]
    own, cross = ([name for name in taken if side in name] for side in (".decoder.", ".encoder."))
    source = {
        "model": "source.onnx",
        "inputs": ["input_ids", "attention_mask"],
        "outputs": [name.replace("past_key_values", "present") for name in cross],
        "past": cross,
        "mask": "encoder_attention_mask",
    }
    names = {"ids": "input_ids", "mask": "attention_mask", "positions": None, "logits": "logits", "next_token": None}
    present = [name.replace("past_key_values", "present") for name in own]
    cache = {"layout": "concat", "past": own, "present": present, "cross": source, **names}
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(parts / "decoder" / "model.onnx", folder / "model.onnx")
    shutil.copy(parts / "encoder" / "model.onnx", folder / "source.onnx")
    (folder / "onnxsmith.json").write_text(json.dumps(manifest | {"cache": cache}))
    check("t5", onnxsmith.load(folder, threads=1), **BEAMS)
    (folder / "source.onnx").unlink()
    with pytest.raises(BadInput, match="source model .* is missing"):
        onnxsmith.load(folder)
