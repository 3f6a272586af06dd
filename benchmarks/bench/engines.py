"""The engines: which of our variants and which peers, in which environment, and what each is compared with."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from onnxsmith.compiler.target import TARGETS

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
PEERS = ROOT / "build" / "bench-peers" / "bin" / "python"
ROOMS = ("compiler", "passes", "runtime")

Group = Literal["fp32", "low"]
GROUPS: tuple[Group, ...] = ("fp32", "low")


@dataclass(frozen=True)
class Engine:
    """``adapter`` is the module in adapters/ that runs it, ``variant`` what that module is told."""

    name: str
    group: Group
    adapter: str
    variant: str

    @property
    def python(self) -> str:
        return sys.executable if self.adapter == "ours" else str(PEERS)


REFERENCE = Engine("onnxsmith fp32", "fp32", "ours", "fp32")
CALIBRATED = Engine("onnxsmith int8, calibrated", "low", "ours", "int8+calibrate")  # with the samples that NNCF gets
PRODUCTS = Engine("products alone", "fp32", "products", "fp32")  # the roof
RAW = Engine("ONNX Runtime, raw export", "fp32", "ort", "raw")

_PEERS = (
    RAW,
    Engine("onnxruntime.transformers", "fp32", "ort", "transformers"),
    Engine("onnxscript ort_fusions", "fp32", "ort", "fusions"),
    Engine("PyTorch eager", "fp32", "pytorch", "eager"),
    Engine("torch.compile, frozen", "fp32", "pytorch", "compile"),
    Engine("OpenVINO fp32", "fp32", "openvino_", "fp32"),
    Engine("CTranslate2 fp32", "fp32", "ctranslate", "float32"),
    Engine("ORT quantize_dynamic", "low", "ort", "dynamic"),
    Engine("OpenVINO bf16", "low", "openvino_", "bf16"),
    Engine("OpenVINO NNCF int8", "low", "openvino_", "int8"),
    Engine("CTranslate2 int8", "low", "ctranslate", "int8"),
)


def engines() -> list[Engine]:
    """All of them: ours in every precision that the CPU target has, and the peers."""
    lossy = [p for p in TARGETS["cpu"].precisions if p != "fp32"]
    own = [Engine(f"onnxsmith {p}", "low", "ours", p) for p in lossy]
    return [REFERENCE, *own, CALIBRATED, *_PEERS, PRODUCTS]


def references(group: Group, chosen: list[Engine]) -> list[Engine]:
    """Whom a group's times are set beside: our fp32; our first lossy precision, and the one that is calibrated."""
    own = [e for e in chosen if e.group == group and e.adapter == "ours"]
    return [*own[:1], *(e for e in own[1:] if e == CALIBRATED)] or [REFERENCE]


@cache
def code() -> str:
    """What our graphs depend on besides installed versions: our compiler and runtime."""
    return _sources(*(ROOT / room for room in ROOMS))


@cache
def harness() -> str:
    """What a time depends on besides the graph and installed versions: how it is measured."""
    return _sources(Path(__file__).parent)


def _sources(*folders: Path) -> str:
    return digest([path.read_text(encoding="utf-8") for f in folders for path in sorted(f.rglob("*.py"))])


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
