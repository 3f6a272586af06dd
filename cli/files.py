"""Texts and tensors that the commands read and write."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxsmith.errors import BadInput

if TYPE_CHECKING:
    import numpy as np


def read_texts(path: Path) -> list[str]:
    """The texts of a UTF-8 file, one a line, blank lines left out.

    Raises:
        BadInput: the file is missing, is not UTF-8 or holds no text.
    """
    texts = split_texts(read_utf8(path, "a text file with one text a line"))
    if not texts:
        raise BadInput(f"{path}: no text in it; expected one text a line")
    return texts


def read_utf8(path: Path, expected: str) -> str:
    """What a file of text holds. Raises BadInput when it is missing, and was ``expected``, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_samples(path: Path) -> dict[str, np.ndarray] | list[str]:
    """The arrays of an .npz file, or the texts of any other. Raises BadInput as the readers of those do."""
    return read_tensors(path) if path.suffix == ".npz" else read_texts(path)


def split_texts(content: str) -> list[str]:
    """The lines of ``content`` that are not blank, without the white space around them."""
    return [line.strip() for line in content.splitlines() if line.strip()]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file.

    Raises:
        BadInput: the file is missing, is no .npz archive, or holds pickled objects (which are never loaded).
    """
    import numpy as np

    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected an .npz file with one array per model input")
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            tensors = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: not an .npz file of plain arrays; write it with numpy.savez") from error
    return tensors


def check_writable(path: Path) -> None:
    """Refuse an output before the work is done rather than after.

    Raises:
        BadInput: the folder of ``path`` is missing or not writable, or ``path`` is a folder.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise BadInput(f"{path}: its folder does not exist; create {path.parent} first")
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path}: its folder is not writable")
