"""The models that generate, each a folder with a transformers checkpoint; runs in the peers' environment:

    python -m benchmarks.generate.subjects NAME FOLDER [GGUF]

SmolLM2-135M-Instruct has its real weights, those of the GGUF file, which stays beside the checkpoint as source.gguf.
The encoder-decoders have random ones: their speed does not depend on them.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

_MARIAN = {  # opus-mt's "transformer-base"
    "vocab_size": 58101,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "max_position_embeddings": 512,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 58100,
    "decoder_start_token_id": 58100,
    "eos_token_id": 0,
}
_T5 = {
    "d_model": 512,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "d_kv": 64,
    "vocab_size": 32128,
    "decoder_start_token_id": 0,
}
_TEXT = ("docs/benchmarks.md", "docs/generation.md", "docs/tuning.md", "CONTRIBUTING.md")


def write(name: str, folder: Path, source: Path | None) -> None:
    torch.manual_seed(0)
    if name == "smollm2":
        assert source is not None
        _write_gguf(source, folder)
    elif name == "marian-base":
        _write_random(transformers.MarianMTModel(transformers.MarianConfig(**_MARIAN)), folder / "checkpoint")
    else:
        _write_random(transformers.T5ForConditionalGeneration(transformers.T5Config(**_T5)), folder / "checkpoint")


def _write_gguf(source: Path, folder: Path) -> None:
    """The checkpoint, and prompts.json: ids of English text, a row from each of four pages."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    shutil.copy(source, folder / "source.gguf")
    config = transformers.AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=model)["tensors"]
    model.load_state_dict(weights, strict=False)  # the head is tied
    model.save_pretrained(folder / "checkpoint")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder / "checkpoint")
    rows = [tokenizer(Path(path).read_text(encoding="utf-8"))["input_ids"][:512] for path in _TEXT]
    (folder / "prompts.json").write_text(json.dumps(rows), encoding="utf-8")


def _write_random(model: Any, checkpoint: Path) -> None:
    """With a vocabulary of a word for every id, without which CTranslate2 converts nothing."""
    model.save_pretrained(checkpoint)
    pad = model.config.pad_token_id  # by whose name CTranslate2 takes it out of Marian's
    words = {"<pad>" if id == pad else f"t{id}": id for id in range(model.config.vocab_size)}
    ends = {"eos_token": f"t{model.config.eos_token_id}", "pad_token": "<pad>"}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t3"))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t3", **ends)
    made.save_pretrained(checkpoint)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
