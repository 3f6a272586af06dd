"""``onnxsmith export``: from PyTorch to ONNX."""

from __future__ import annotations

from pathlib import Path

import click

import onnxsmith
from onnxsmith.cli import console


@click.command("export")
@click.argument("source")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Hugging Face folder that holds the weights.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder or .onnx to write.")
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set of the export.")
@click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin too; only tensors are taken from it.")
def command(source: str, checkpoint: Path | None, output: Path, opset: int, allow_pickle: bool) -> None:
    """Export a Transformer from PyTorch to ONNX.

    Batch and sequence stay dynamic. SOURCE is an architecture with its weights in --checkpoint (bert, gpt,
    llama, bart, t5), the name of a config with random weights (onnxsmith models lists them), or
    package.module:factory for your own nn.Module.
    """
    with console.working(f"exporting {source}"):
        written = onnxsmith.export(source, output, checkpoint=checkpoint, opset=opset, allow_pickle=allow_pickle)
    console.note(f"wrote {written}")
