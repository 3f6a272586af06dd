"""Reading an ONNX file's metadata without its graph: no onnx import, and no weight is touched."""

from __future__ import annotations

import mmap
from pathlib import Path

from onnxsmith.runtime.wire import fields

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2  # field numbers of onnx.proto


def read_metadata(path: Path) -> dict[str, str]:
    """A model's ``metadata_props``; the graph and its weights are stepped over, so this takes microseconds.

    Bytes that are no ModelProto give no metadata: opening the session says what is wrong with them.
    """
    if path.stat().st_size == 0:
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = [f for f in fields(data, 0, len(data)) if f.number == _METADATA_PROPS]
            return dict(_entry(data, f.start, f.end) for f in found)
        except ValueError:
            return {}


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    text = {f.number: data[f.start : f.end].decode() for f in fields(data, start, end)}
    return text.get(_KEY, ""), text.get(_VALUE, "")
