"""Putting an output in place so that a reader finds the old one, the new one whole, or none.

The new one is made in a hidden folder beside the target, synced, and renamed into place. A run that is killed
leaves that folder, ``.onnxsmith-*.tmp``, behind; killed between the last renames, it leaves the old output
in its ``old``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to make the new file or folder at; it takes the target's place when the block ends well.

    Companions of a file, made beside it, go to the target's folder with it.

    Raises:
        OSError: the disk refuses; the old output is in its place.
    """
    parent = target.absolute().parent
    work = Path(tempfile.mkdtemp(prefix=".onnxsmith-", suffix=".tmp", dir=parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        old.mkdir()
        yield new / target.name
        _sync_tree(new)
        _swap(new, old, target)
        _sync(parent)
    finally:
        if all((parent / path.name).exists() for path in old.glob("*")):  # else the only copy of the old output
            shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, old: Path, target: Path) -> None:
    """Move the old files aside, the target first, and the new ones in, the target last: never a mix."""
    parent = target.absolute().parent
    names = sorted((path.name for path in new.iterdir()), key=lambda name: name != target.name)
    if len(names) == 1 and not target.is_dir():
        os.replace(new / target.name, target)
        return
    try:
        for name in names:
            if (parent / name).exists():
                os.rename(parent / name, old / name)
        for name in reversed(names):
            os.rename(new / name, parent / name)
    except BaseException:  # Ctrl-C must not cost the old output either
        for name in reversed(names):
            if (old / name).exists() and not (parent / name).is_dir():
                os.replace(old / name, parent / name)
        raise


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
