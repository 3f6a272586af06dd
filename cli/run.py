"""``onnxsmith run``: a model on texts or on tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

import onnxsmith
from onnxsmith.cli import console, files
from onnxsmith.errors import BadUsage

if TYPE_CHECKING:
    import numpy as np

SUMMARY = ("dtype", "shape", "min", "max", "mean")


@click.command("run")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, help="A text to embed; may be given several times.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="A UTF-8 file with one text a line.")
@click.option("--input", "tensors", type=click.Path(path_type=Path), help="An .npz of tensors, one per input.")
@click.option("--output", type=click.Path(path_type=Path), help="An .npz to write the results to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines on stdout.")
def command(
    path: Path,
    texts: tuple[str, ...],
    file: Path | None,
    tensors: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run a model on texts or on tensors.

    PATH is a folder that onnxsmith wrote, or any .onnx file. Texts come from --text, --file or standard
    input, one a line; raw tensors from --input.
    """
    if sum(map(bool, (texts, file, tensors))) > 1:
        raise BadUsage("give one of --text, --file and --input")
    if output:
        files.check_writable(output)
    if tensors:
        results = _run_tensors(path, files.read_tensors(tensors), as_json)
    else:
        results = _run_texts(path, list(texts) or _read(file), as_json)
    if output:
        files.write_tensors(output, results)
        console.note(f"wrote {output}")


def _read(file: Path | None) -> list[str]:
    """The texts of ``file``, or of standard input when something is piped into it."""
    if file:
        return files.read_texts(file)
    if sys.stdin.isatty():
        raise BadUsage("nothing to run on: give --text, --file or --input, or pipe texts in, one a line")
    texts = files.split_texts(sys.stdin.read())
    if not texts:
        raise BadUsage("nothing to run on: standard input holds no text; give --text, --file or --input")
    return texts


def _run_texts(path: Path, texts: list[str], as_json: bool) -> dict[str, np.ndarray]:
    embeddings = onnxsmith.load(path).embed(texts)
    if as_json:
        for text, row in zip(texts, embeddings.tolist(), strict=True):
            console.emit_json({"text": text, "embedding": row}, indent=None)
    else:
        _print_embeddings(texts, embeddings)
    return {"embeddings": embeddings}


def _print_embeddings(texts: list[str], embeddings: np.ndarray) -> None:
    """The size and first components of each embedding [N, D], and the cosine of each to the first."""
    from onnxsmith.runtime.search import cosines

    to_first = cosines(embeddings[:1], embeddings)[0]
    rows = [
        (text, row.size, " ".join(f"{value:+.3f}" for value in row[:4]) + " ...", f"{cosine:.4f}")
        for text, row, cosine in zip(texts, embeddings, to_first, strict=True)
    ]
    console.table("embeddings", ("text", ">size", "embedding", ">cosine to the first"), rows)


def _run_tensors(path: Path, feeds: Mapping[str, np.ndarray], as_json: bool) -> dict[str, np.ndarray]:
    outputs = onnxsmith.load(path).run(feeds)
    if as_json:
        for name, value in outputs.items():
            console.emit_json({"output": name, **_summary(value)}, indent=None)
        return outputs
    summaries = [(name, _summary(value)) for name, value in outputs.items()]
    rows = [(name, *(summary.get(key, "") for key in SUMMARY)) for name, summary in summaries]
    console.table("outputs", ("output", *SUMMARY), rows)
    return outputs


def _summary(value: np.ndarray) -> dict[str, object]:
    """Type, shape and range of an output; the values themselves go to --output."""
    summary: dict[str, object] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    if value.size and value.dtype.kind in "biuf":
        summary |= {"min": float(value.min()), "max": float(value.max()), "mean": float(value.mean())}
    return summary
