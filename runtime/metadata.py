"""Reading an ONNX file's metadata without its graph: a walk over the protobuf wire format, no onnx import.

Source: https://protobuf.dev/programming-guides/encoding and onnx.proto (ModelProto, StringStringEntryProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_metadata(path: Path) -> dict[str, str]:
    """A model's ``metadata_props``; the graph and its weights are stepped over, so this takes microseconds.

    Bytes that are no ModelProto give no metadata: opening the session says what is wrong with them.
    """
    with path.open("rb") as file:
        try:
            spans = list(_fields(file, 0, path.stat().st_size))
            return dict(_entry(file, start, end) for number, start, end in spans if number == _METADATA_PROPS)
        except ValueError:
            return {}


def _entry(file: BinaryIO, start: int, end: int) -> tuple[str, str]:
    text = {}
    for number, first, last in list(_fields(file, start, end)):
        file.seek(first)
        text[number] = file.read(last - first).decode()
    return text.get(_KEY, ""), text.get(_VALUE, "")


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of every field of the message in ``file[start:end]``; ValueError if malformed."""
    file.seek(start)
    while file.tell() < end:
        tag = _varint(file)
        kind = tag & 7
        if kind == _VARINT:
            _varint(file)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            length = _varint(file)
        first = file.tell()
        if length is None or first + length > end:
            raise ValueError(f"not a protobuf message at byte {first}")
        yield tag >> 3, first, first + length
        file.seek(first + length)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than ten bytes")
