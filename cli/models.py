"""``onnxsmith models``: the named configs and how large they are."""

from __future__ import annotations

import click

from onnxsmith.cli import console
from onnxsmith.errors import BadInput


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(as_json: bool) -> None:
    """List the named configs and their sizes.

    Each can be exported by name, with random weights. FLOPs are of one token, without the attention over
    earlier ones; memory is that of the weights. The cache is what each token of a text adds while a
    decoder generates, in float32: a quarter of that with `optimize --cache-precision int8`.
    """
    try:
        from onnxsmith.models import sizes
    except ModuleNotFoundError as e:
        raise BadInput(f"models needs {e.name}, which is not installed: pip install 'onnxsmith[torch]'") from e
    with console.working("counting"):
        found = sizes.sizes()
    if as_json:
        console.emit_json([size.to_json() for size in found])
        return
    memory = (f">{precision}" for precision in sizes.BYTES)
    columns = ("model", ">parameters", ">GFLOPs / token", *memory, ">cache / token")
    rows = [
        (s.name, f"{s.parameters:,}", f"{s.flops / 1e9:.3g}", *map(_bytes, s.memory.values()), _bytes(s.cache))
        for s in found
    ]
    console.table("models", columns, rows)


def _bytes(size: int) -> str:
    if size < 1e6:
        return f"{size / 1e3:.1f} kB" if size else "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
