"""``onnxsmith demo``: the main job on a real model, from PyTorch weights to a verified semantic search."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

import onnxsmith
from onnxsmith.cli import comparison as compared
from onnxsmith.cli import console, tables
from onnxsmith.models.packaged import find_checkpoint

if TYPE_CHECKING:
    import numpy as np

    from onnxsmith.runtime.embed import RunFeeds

PRECISIONS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
TORCH = "PyTorch"
SHOWN_QUERIES = 8
NEAREST = 2


@click.command("demo")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="demo",
    show_default=True,
    help="Folder for the models.",
)
def command(output: Path) -> None:
    """Do the main job on a real model.

    Exports all-MiniLM-L6-v2, optimizes it for the CPU in fp32 and int8, searches with every variant, and
    compares them with each other, with ONNX Runtime on the raw export and with PyTorch.
    """
    paths = {"raw": export_raw(output / "raw")}
    for precision in PRECISIONS:
        paths[precision] = _optimize(paths["raw"], output / precision, precision)
    peer = _pytorch()
    _search(paths, peer)
    _compare(paths, peer)
    console.note(f"the models are in {', '.join(map(str, paths.values()))}")


def export_raw(output: Path) -> Path:
    """Export the demo's model from PyTorch into the folder ``output``."""
    checkpoint = find_checkpoint()
    output.parent.mkdir(parents=True, exist_ok=True)
    console.note("exporting all-MiniLM-L6-v2 from PyTorch")
    with console.working("exporting"):
        return onnxsmith.export("bert", output, checkpoint=checkpoint)


def corpus(name: str) -> list[str]:
    """The texts of a file in ``cli/data``, without its topic lines (``# topic``) and blank lines."""
    lines = files("onnxsmith.cli").joinpath("data", name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _optimize(source: Path, output: Path, precision: Literal["fp32", "int8"]) -> Path:
    console.note(f"optimizing for the CPU in {precision}, checking every rewrite")
    with console.working("optimizing"):
        report = onnxsmith.optimize(source, output, target="cpu", precision=precision, verify="each")
    console.heading(f"{source} -> {output}")
    tables.print_report(report)
    return output


def _pytorch() -> RunFeeds:
    from onnxsmith.compiler.peer import torch_peer
    from onnxsmith.models.checkpoint import load_checkpoint

    return torch_peer(load_checkpoint(find_checkpoint()))


def _search(paths: Mapping[str, Path], peer: RunFeeds) -> None:
    """Find the nearest sentences of every query with every variant, and print how far they agree."""
    sentences, queries = corpus("sentences.txt"), corpus("queries.txt")
    console.note(f"searching {len(sentences)} sentences for {len(queries)} queries with every variant")
    with console.working("embedding"):
        models = {name: onnxsmith.load(path) for name, path in paths.items()}
        embeddings = {name: model.embed(queries + sentences) for name, model in models.items()}
        embeddings[TORCH] = models["raw"].embed(queries + sentences, run=peer)
    console.heading("semantic search")
    _print_nearest(queries, sentences, embeddings)
    _print_agreement(len(queries), embeddings)


def _print_nearest(queries: list[str], sentences: list[str], embeddings: Mapping[str, np.ndarray]) -> None:
    """The sentences nearest to the first queries by the fp32 variant, with the cosines of every variant."""
    from onnxsmith.runtime.search import cosines, nearest

    scores = {name: cosines(rows[: len(queries)], rows[len(queries) :]) for name, rows in embeddings.items()}
    fp32 = embeddings["fp32"]
    order, _ = nearest(fp32[: len(queries)], fp32[len(queries) :], NEAREST)
    rows = [
        (
            query if place == 0 else "",
            sentences[found],
            *(f"{table[i, found]:.4f}" for table in scores.values()),
        )
        for i, query in enumerate(queries[:SHOWN_QUERIES])
        for place, found in enumerate(order[i])
    ]
    title = f"nearest sentences and cosines, {SHOWN_QUERIES} of {len(queries)} queries"
    console.table(title, ("query", "nearest sentences", *(f">{name}" for name in scores)), rows)


def _print_agreement(queries: int, embeddings: Mapping[str, np.ndarray]) -> None:
    """The smallest cosine of any embedding [N, D], and how often the nearest sentence is the same."""
    from onnxsmith.runtime.parity import cosine
    from onnxsmith.runtime.search import nearest

    first = {name: nearest(rows[:queries], rows[queries:], 1)[0] for name, rows in embeddings.items()}
    rows = [
        (
            name,
            f"{cosine(found, embeddings[TORCH]).min():.7f}",
            f"{(first[name] == first[TORCH]).sum()} of {queries}",
        )
        for name, found in embeddings.items()
        if name != TORCH
    ]
    console.table("agreement with PyTorch", ("variant", ">smallest cosine", ">same nearest sentence"), rows)


def _compare(paths: Mapping[str, Path], peer: RunFeeds) -> None:
    console.note("comparing size, latency and outputs of the variants")
    with console.working("measuring"):
        comparison = onnxsmith.compare(
            list(paths.values()),
            shapes={"batch": 1, "sequence": 128},
            texts=corpus("sentences.txt"),
            peers={TORCH: peer},
            quick=True,
        )
    console.heading("summary")
    compared.print_comparison(comparison)
