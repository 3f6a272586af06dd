"""onnxsmith, as its users get it: exported from the checkpoint, optimized with a cache, loaded, generating."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnxsmith
from benchmarks.bench.engines import ROOT, code
from benchmarks.generate.adapters import Generate, Ids, Said

_OTHER = (3, 3)
_WORDS = 80  # of a text to calibrate on, about 128 tokens
_ARCHITECTURES = {"marian": "bart"}  # by the checkpoint's model_type, where they are called otherwise


def open_engine(folder: Path, variant: str, threads: int) -> Generate:
    model = onnxsmith.load(_compiled(folder, variant), threads=threads)

    def generate(prompts: Ids, new: int, beams: int) -> Said:
        model.generate([_OTHER], max_new_tokens=1)  # a call reads no prompt again that the cache still holds
        found = model.generate(
            prompts, max_new_tokens=new, eos_token_id=(), forced_eos_token_id=(), num_beams=beams, do_sample=False
        )
        time = found.timing
        return Said([list(ids) for ids in found.sequences], time.first_token, time.total, time.read)

    return generate


def _compiled(folder: Path, variant: str) -> Path:
    """The artifact of a precision, made again whenever our code has changed."""
    path = folder / f"onnxsmith-{variant}-{code()}"
    if path.exists():
        return path
    for stale in folder.glob(f"onnxsmith-{variant}-{'?' * len(code())}"):
        shutil.rmtree(stale)
    made = folder / f"making-{variant}"
    shutil.rmtree(made, ignore_errors=True)
    calibrate = texts() if variant == "int4" else None
    options: dict[str, Any] = {"verify": "off", "tuned": False, "calibrate": calibrate}
    unpad = bool(_config(folder).get("is_encoder_decoder"))
    onnxsmith.optimize(_plain(folder), made, precision=variant, cache=True, unpad=unpad, **options)
    made.rename(path)
    return path


def _plain(folder: Path) -> Path:
    """The export that all precisions start from."""
    plain = folder / f"plain-{code()}"
    if not plain.exists():
        for stale in folder.glob("plain-*"):
            shutil.rmtree(stale)
        kind = _config(folder)["model_type"]
        onnxsmith.export(_ARCHITECTURES.get(kind, kind), plain, checkpoint=folder / "checkpoint")
    return plain


def _config(folder: Path) -> Any:
    return json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))


def texts() -> list[str]:
    """English to calibrate on, which no prompt is from."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    words = [word for page in pages for word in page.read_text(encoding="utf-8").split()]
    return [" ".join(words[i : i + _WORDS]) for i in range(0, len(words), _WORDS)]
