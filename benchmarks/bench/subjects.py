"""The models that are measured: a transformers folder with weights each, and its plain export.

Runs in the peers' environment:

    python -m benchmarks.bench.subjects NAME FOLDER [CHECKPOINT]

writes FOLDER/checkpoint (random weights from a fixed seed, where no CHECKPOINT is given) and FOLDER/raw.onnx, PyTorch's
own export of transformers' module. Every engine starts from one of the two.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPSET = 18  # what torch.onnx.export writes by default


@dataclass(frozen=True)
class Subject:
    """A model: ``kind`` is transformers' model type, ``config`` differs from its defaults.

    What is computed: the last hidden states [B, S, D]; for "gpt2" the logits [B, 1, V] that choose the next token.
    """

    title: str
    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    real: bool = False  # weights come from a package, see prepare.py


_T5_SMALL = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "d_kv": 64, "vocab_size": 32128}
_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}

_ABSOLUTE = {"position_embedding_type": "absolute"}  # what BERT always has; CTranslate2's converter wants to read it

SUBJECTS = {
    "bert-base": Subject("BERT-base", "bert", _ABSOLUTE),
    "minilm": Subject("all-MiniLM-L6-v2", "bert", real=True),
    "gpt2": Subject("GPT-2 prefill", "gpt2"),
    "t5-small": Subject("T5-small encoder", "t5", _T5_SMALL),
    "tiny-bert": Subject(
        "tiny BERT", "bert", {**_TINY, **_ABSOLUTE, "vocab_size": 1000}
    ),  # these three try the harness itself
    "tiny-gpt2": Subject("tiny GPT-2", "gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000}),
    "tiny-t5": Subject("tiny T5", "t5", {**_T5_SMALL, "d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 1}),
}
DEFAULT = ("bert-base", "minilm", "gpt2", "t5-small")


def load_module(kind: str, checkpoint: Path, **options: Any) -> Any:
    """A torch module that takes (input_ids, attention_mask), int64 [B, S], and gives the one output."""
    from transformers import AutoModel, AutoModelForCausalLM, T5EncoderModel

    if kind == "gpt2":
        return _module(AutoModelForCausalLM.from_pretrained(checkpoint, **options), _next_token)
    model = T5EncoderModel if kind == "t5" else AutoModel
    return _module(model.from_pretrained(checkpoint, **options), _hidden)


def _module(model: Any, compute: Callable[[Any, Any, Any], Any]) -> Any:
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return compute(self.model, input_ids, attention_mask)

    return Module().eval()


def _hidden(model: Any, ids: Any, mask: Any) -> Any:
    return model(input_ids=ids, attention_mask=mask).last_hidden_state


def _next_token(model: Any, ids: Any, mask: Any) -> Any:
    return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits


def write(subject: Subject, folder: Path, checkpoint: Path | None) -> None:
    """Write the checkpoint and the export. Nothing is kept of an export that fails."""
    if checkpoint is None:
        _random(subject, folder / "checkpoint")
    else:
        shutil.copytree(checkpoint, folder / "checkpoint", dirs_exist_ok=True)
    # T5's other attention, with the position bias as its mask, does not export with dynamic sizes.
    options = {"attn_implementation": "eager"} if subject.kind == "t5" else {}
    _export(load_module(subject.kind, folder / "checkpoint", **options), folder / "raw.onnx")


def _random(subject: Subject, checkpoint: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BertModel, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = AutoConfig.for_model(subject.kind, **subject.config)
    makers = {"gpt2": AutoModelForCausalLM.from_config, "t5": T5ForConditionalGeneration, "bert": BertModel}
    makers[subject.kind](config).save_pretrained(checkpoint)
    _write_tokenizer(config.vocab_size, checkpoint)


def _write_tokenizer(size: int, checkpoint: Path) -> None:
    """A word for every id: CTranslate2 converts no model without its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"t{id}": id for id in range(size)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0", bos_token="t1", eos_token="t2").save_pretrained(
        checkpoint
    )


def _export(module: Any, path: Path) -> None:
    import torch

    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    torch.onnx.export(
        module,
        (ids, torch.ones_like(ids)),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["output"],
        dynamic_shapes=(axes, axes),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(SUBJECTS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
