"""Settings and prompts: what contradicts, what is out of range, what a checkpoint recommends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxsmith
from onnxsmith.errors import BadInput, BadUsage, OnnxsmithError
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.defaults import recommended
from tests.generation import folders, ours
from tests.tiny import write_mlp

WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"num_beams": 0}, "num_beams=0: expected a whole number of at least 1"),
    ({"num_beams": 2, "do_sample": True}, "num_beams=2 and do_sample contradict each other"),
    ({"num_beams": 2, "temperature": 0.7}, "num_beams=2 and do_sample contradict each other"),
    ({"num_beams": 2, "prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens is for greedy decoding"),
    ({"do_sample": True, "temperature": 0.0}, "temperature=0 cannot be sampled"),
    ({"temperature": -1.0}, "expected a number of at least 0"),
    ({"temperature": float("nan")}, "expected a number"),
    ({"max_new_tokens": -1}, "expected a whole number of at least 1"),
    ({"max_new_tokens": 2.5}, "expected a whole number"),
    ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens=4 is more than max_new_tokens=3"),
    ({"top_p": 0.0}, "above 0 and at most 1"),
    ({"min_p": 1.5}, "at most 1"),
    ({"repetition_penalty": 0.0}, "above 0"),
    ({"early_stopping": "soon"}, "true, false or 'never'"),
    ({"eos_token_id": -3}, "expected token ids"),
    ({"bad_words_ids": [[]]}, "lists of token ids"),
    ({"stop_strings": [""]}, "expected texts"),
    ({"num_return_sequences": 3}, "num_return_sequences=3 needs do_sample, or num_beams of at least 3"),
    ({"max_tokens": 3}, "no generation setting 'max_tokens'; known are max_new_tokens"),
)


@pytest.mark.parametrize(("settings", "match"), WRONG, ids=str)
def test_wrong_settings(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(BadUsage, match=match) as refused:
        GenerationConfig().overridden(settings)
    assert "\n" not in str(refused.value)


def test_the_caller_chooses_the_way() -> None:
    beams, samples = GenerationConfig(num_beams=4), GenerationConfig(do_sample=True, temperature=0.6)
    assert samples.overridden({"num_beams": 3}).do_sample is False
    assert beams.overridden({"top_p": 0.9}).num_beams == 1 and beams.overridden({"top_p": 0.9}).do_sample
    assert samples.overridden({"max_new_tokens": 3}).do_sample is True
    assert samples.overridden({"do_sample": False}).do_sample is False
    assert beams.overridden({"prompt_lookup_num_tokens": 3}).num_beams == 1
    assert samples.overridden({"temperature": None}) == samples


def test_recommended_settings() -> None:
    given = {"eos_token_id": [5, 7], "max_length": 40, "min_length": 11, "num_beams": 4, "unknown": 3, "top_k": None}
    manifest = {"generation": given, "special_tokens": {"eos": 9, "pad": 2}}
    source = recommended(manifest, source=True)
    assert (source.eos_token_id, source.pad_token_id, source.num_beams) == ((5, 7), 2, 4)
    assert (source.max_new_tokens, source.min_new_tokens) == (39, 10)
    assert recommended(manifest).max_new_tokens is None  # which would count the prompt
    assert recommended({"special_tokens": {"eos": 9}}).eos_token_id == (9,)
    for broken in ({"top_p": 3}, {"num_beams": "4"}, [3]):
        with pytest.raises(BadInput, match="generation"):
            recommended({"generation": broken})


@pytest.mark.parametrize(
    ("prompt", "options", "match"),
    [
        ([], {}, "at least one prompt"),
        ("", {}, "the tokenizer finds no token"),
        ([[7], []], {}, "prompt 1: expected at least one token id"),
        ([7, 259], {}, "prompt 0: expected token ids from 0 to 258, found 259"),
        ([-1], {}, "found -1"),
        ([[7.5]], {}, "expected at least one token id"),
        (np.ones((2, 3), np.int64), {"attention_mask": np.ones((1, 3))}, "attention_mask of 2 rows"),
        (np.ones((1, 3), np.int64), {"attention_mask": np.zeros((1, 3))}, "leaves no token"),
        (np.ones((1, 3), np.int64), {"attention_mask": np.ones((1, 2))}, "attention_mask of 3 numbers"),
        ([6] * 200, {}, "a prompt has 200 tokens, and the model takes at most 199"),
        ([6], {"suppress_tokens": [300]}, "suppress_tokens: expected token ids from 0 to 258, found 300"),
    ],
)
def test_wrong_prompts(prompt: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(OnnxsmithError, match=match) as refused:
        ours("gpt2").generate(prompt, **options)
    assert "\n" not in str(refused.value)


def test_a_source_that_is_too_long() -> None:
    with pytest.raises(BadInput, match="a prompt has 33 tokens, and the model takes at most 32"):
        ours("bart").generate([7] * 33)


@pytest.mark.parametrize("do_sample", [False, True])
def test_no_token_is_left(do_sample: bool) -> None:
    with pytest.raises(BadUsage, match="the settings forbid every token"):
        ours("gpt2").generate([7], suppress_tokens=list(range(259)), do_sample=do_sample)


def test_models_that_cannot_generate(tmp_path: Any) -> None:
    with pytest.raises(BadInput, match="without a cache cannot generate; make one by: onnxsmith optimize --cache"):
        onnxsmith.load(write_mlp(tmp_path / "m.onnx")).generate([1])
    with pytest.raises(BadInput, match="an encoder-decoder's decoder alone"):
        onnxsmith.load(folders("t5")[1] / "decoder").generate([1])


def test_a_target_needs_a_start(tmp_path: Any) -> None:
    for part, task in (("encoder", "encoder-with-present"), ("decoder", "decoder-with-past")):
        onnxsmith.export("bart-tiny", tmp_path / "b" / part, task=task, exporter="torchscript")
    model = onnxsmith.load(tmp_path / "b")
    with pytest.raises(BadUsage, match="give decoder_start_token_id"):
        model.generate([7, 8])
    assert len(model.generate([7, 8], decoder_start_token_id=2, max_new_tokens=4).sequences[0]) == 4
