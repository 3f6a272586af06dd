"""``onnxsmith export``: from PyTorch to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import console

if TYPE_CHECKING:
    from onnxsmith.compiler.exporters import Exporter


@click.command("export")
@click.argument("source")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Hugging Face folder or GGUF file with weights.")
@click.option("--task", help="A part of the model, such as encoder; a wrong one lists them. [default: the whole]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder or .onnx to write.")
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "torchscript"]),
    default="dynamo",
    show_default=True,
    help="Which of torch.onnx's exporters to use; the older one takes models that the newer one refuses.",
)
@click.option("--opset", type=int, help="ONNX operator set of the export. [default: 18; 17 for torchscript]")
@click.option(
    "--structure", is_flag=True, help="Write the graph alone, to plan with: no weights are made or read, at any size."
)
@click.option(
    "--attention-weights", is_flag=True, help="Give the weights of each attention too, for run --attention or your own."
)
@click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin too; only tensors are taken from it.")
def command(
    source: str,
    checkpoint: Path | None,
    task: str | None,
    output: Path,
    exporter: Exporter,
    opset: int | None,
    structure: bool,
    attention_weights: bool,
    allow_pickle: bool,
) -> None:
    """Export a Transformer from PyTorch to ONNX.

    Batch and sequence stay dynamic. SOURCE is an architecture with its weights in --checkpoint (bert, gpt,
    llama, bart, t5, transformer), the name of a config with random weights (onnxsmith models lists them), or
    package.module:factory for your own nn.Module.
    """
    with console.working(f"exporting {source}"):
        written = onnxsmith.export(
            source,
            output,
            checkpoint=checkpoint,
            task=task,
            opset=opset,
            exporter=exporter,
            structure=structure,
            allow_pickle=allow_pickle,
            attention_weights=attention_weights,
        )
    console.note(f"wrote {written}")
