"""Arrays by name in a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxsmith.compiler.atomic import replacing


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write them as .npz, atomically: a reader sees the old file or the new one, never a part."""
    with replacing(path) as made, zipfile.ZipFile(made, "w") as archive:
        for name, array in arrays.items():  # numpy.savez refuses one that is named "file"
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
