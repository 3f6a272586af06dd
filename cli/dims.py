"""``--dims``: names for dimensions that a file leaves open."""

from __future__ import annotations

from collections.abc import Iterable

import click

from onnxsmith.errors import BadUsage

option = click.option(
    "--dims",
    multiple=True,
    metavar="INPUT=DIM,...",
    help="Name or fix an input's dimensions, where the file leaves them open; equal names are equal sizes.",
)


def parse(texts: Iterable[str]) -> dict[str, tuple[int | str, ...]]:
    """Dimensions by input. Raises BadUsage for what is not like ``input_ids=batch,sequence`` or ``mask=1,sequence``."""
    return dict(map(_parse, texts))


def _parse(text: str) -> tuple[str, tuple[int | str, ...]]:
    name, _, listed = text.rpartition("=")
    found = [dim.strip() for dim in listed.split(",")]
    if not name or not all(dim.isdecimal() or dim.isidentifier() for dim in found) or "0" in found:
        raise BadUsage(f"--dims {text!r}: give an input and its dimensions, such as input_ids=batch,sequence")
    return name, tuple(int(dim) if dim.isdecimal() else dim for dim in found)
