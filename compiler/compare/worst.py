"""Keeping the input on which a variant is furthest from the truth, to replay it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from onnxsmith.compiler.arrays import write_npz
from onnxsmith.compiler.compare.accuracy import Accuracy, Known, worst
from onnxsmith.errors import BadInput


def check_folder(folder: Path) -> None:
    """Fail before any work is done. Raises BadInput where no folder is or can be made."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; give a folder to save inputs in")
    if not folder.parent.is_dir():
        raise BadInput(f"{folder}: its parent does not exist; create {folder.parent} first")


def save(folder: Path, place: int, figures: Sequence[Accuracy], known: Sequence[Known]) -> Path:
    """Write the worst input of the variant at ``place`` as an .npz that ``compare --inputs`` takes."""
    case = next(k.case for k in known if k.case.name == worst(figures).case)
    folder.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")[:40]
    target = folder / f"variant-{place}-{name}.npz"
    write_npz(target, case.feeds)
    return target
