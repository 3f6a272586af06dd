"""Files that are whole or not there: written beside their place, synced, and renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write the new file at; it takes the place of ``path`` when the block ends well.

    A run that is killed leaves it behind, under a name that ends with ``.tmp``.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
