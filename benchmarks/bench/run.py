"""``make bench``: our variants beside the peers, interleaved, with intervals and roofs.

A cell is one model at one shape on all engines of a group; what is measured is kept under build/bench and not measured
again while our graphs, the machine, the versions and the options stay the same. Options choose what to measure; with
--dry the documents of the repository stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from benchmarks.bench import machine, report
from benchmarks.bench.adapters.ours import content
from benchmarks.bench.engines import (
    BUILD,
    GROUPS,
    PEERS,
    PRODUCTS,
    RAW,
    REFERENCE,
    ROOT,
    Engine,
    Group,
    code,
    digest,
    engines,
    harness,
    references,
)
from benchmarks.bench.measure import judge, ratio, set_shapes, time_all
from benchmarks.bench.process import Broken, Worker
from benchmarks.bench.subjects import DEFAULT, SUBJECTS
from onnxsmith.cli import console
from onnxsmith.cli.demo import find_checkpoint
from onnxsmith.compiler.machine import this_machine

SHAPES = tuple((batch, length) for batch in (1, 8) for length in (8, 32, 128, 384))
_SECONDS = 20  # that a cell is to take: where runs are long, there are fewer rounds
_LEAST = 6
AGAIN = " again"  # a second worker of the reference: what the machine's noise alone does
Cell = dict[str, Any]


def main() -> None:
    options = _options()
    described = machine.describe(options.threads)
    console.note(f"read bandwidth {(speed := machine.read_gigabytes(options.threads))} GB/s, {options.threads} threads")
    keys = {(m, g): _key(_subject(m), g, described, options) for m in options.models for g in options.groups}
    for (model, group), key in keys.items():
        _measure(model, group, key, options)
    cells = [cell for (model, group), key in keys.items() for cell in _kept(model, group, key)]
    run = {"code": code(), "machine": {**described, "read_gb_s": speed}, "pairs": options.pairs, "cells": cells}
    report.write(run, BUILD if options.dry else ROOT)
    report.show(run)


def _options() -> argparse.Namespace:
    known = engines()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(DEFAULT))
    parser.add_argument("--shapes", nargs="+", type=_shape, default=list(SHAPES), help="as 1x128; default: all")
    parser.add_argument("--engines", nargs="+", choices=[e.name for e in known], default=[e.name for e in known])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="fp32, low precision")
    parser.add_argument("--pairs", type=int, default=20, help="rounds at most, each times every engine once")
    parser.add_argument("--threads", type=int, default=this_machine().threads)
    parser.add_argument("--dry", action="store_true", help="write nothing outside build/bench")
    options = parser.parse_args()
    options.engines = [e for e in known if e.name in options.engines]
    return options


def _shape(text: str) -> tuple[int, int]:
    batch, _, length = text.partition("x")
    return int(batch), int(length)


def _key(folder: Path, group: Group, described: Cell, options: argparse.Namespace) -> str:
    """Stands for all that a group's times depend on."""
    ours = [e for e in options.engines if e.adapter == "ours" and (e.group == group or e == REFERENCE)]
    graphs = [content(folder, e.variant) for e in ours]
    return digest([harness(), described, options.pairs, [e.name for e in options.engines], graphs])


def _path(model: str, group: Group, batch: int, length: int) -> Path:
    return BUILD / "cells" / f"{model}-{group}-{batch}x{length}.json"


def _kept(model: str, group: Group, key: str) -> Iterator[Cell]:
    """The cells of a model that were measured as this run would."""
    for path in sorted((BUILD / "cells").glob(f"{model}-{group}-*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell["key"] == key:
            yield cell


def _measure(model: str, group: Group, key: str, options: argparse.Namespace) -> None:
    """Measure the cells that are missing, and keep each as soon as it is there."""
    done = {(cell["batch"], cell["length"]) for cell in _kept(model, group, key)}
    todo = [shape for shape in options.shapes if shape not in done]
    if not todo:
        return
    folder = _subject(model)
    with _workers(folder, group, options) as (workers, broken):
        for batch, length in todo:
            cell = _cell(workers, references(group, options.engines), batch, length, options.pairs)
            cell["engines"] |= broken
            path = _path(model, group, batch, length)
            path.parent.mkdir(parents=True, exist_ok=True)
            named = {"key": key, "model": model, "group": group, "batch": batch, "length": length}
            path.write_text(json.dumps({**named, **cell}, indent=1) + "\n", encoding="utf-8")
            console.note(report.line({**named, **cell}))


def _subject(name: str) -> Path:
    """The folder with a model's checkpoint and raw export, made where it is missing."""
    subject = SUBJECTS[name]
    source = Path(__file__).with_name("subjects.py").read_text(encoding="utf-8")
    folder = BUILD / "models" / f"{name}-{digest(source)}"
    if folder.exists():
        return folder
    console.note(f"exporting {subject.title}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = [PEERS, "-m", "benchmarks.bench.subjects", name]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        checkpoint = [find_checkpoint()] if subject.real else []
        with _log(f"{name}-export") as log:
            subprocess.run([*words, made, *checkpoint], cwd=ROOT, check=True, stdout=log, stderr=log)
        made.rename(folder)
    return folder


def _log(name: str) -> IO[bytes]:
    """Where a process prints what nobody reads unless it fails."""
    (BUILD / "logs").mkdir(parents=True, exist_ok=True)
    return (BUILD / "logs" / f"{name}.txt").open("wb")


@contextmanager
def _workers(folder: Path, group: Group, options: argparse.Namespace) -> Iterator[tuple[dict[str, Worker], Cell]]:
    """A worker for each engine of the group by name, and why the others have none."""
    first = references(group, options.engines)[0]
    chosen = [e for e in options.engines if e.group == group or e == REFERENCE]
    wanted = [RAW, first, replace(first, name=first.name + AGAIN), *chosen]
    found: dict[str, Worker] = {}
    broken: Cell = {}
    with ExitStack() as stack:
        for engine in dict.fromkeys(wanted):
            log = stack.enter_context(_log(f"{folder.name}-{engine.name}"))
            try:
                found[engine.name] = Worker(engine, folder, options.threads, log)
                stack.callback(found[engine.name].close)
            except Broken as e:
                broken[engine.name] = {"why": str(e)}
                console.error(f"{engine.name}: {e}")
        yield found, broken


def _cell(workers: dict[str, Worker], own: list[Engine], batch: int, length: int, pairs: int) -> Cell:
    """Outputs, then times, at one shape; ratios are the time of each of our own references over the engine's."""
    first, *_ = own
    with tempfile.TemporaryDirectory() as scratch:
        ready = set_shapes(workers, batch, length, Path(scratch))
    groups: dict[str, str] = {name: worker.engine.group for name, worker in workers.items()}
    found = judge(ready, ready[RAW.name]["output"], groups)
    timed = {n: w for n, w in workers.items() if "why" not in found[n] and (n != RAW.name or first.group == RAW.group)}
    expected = {name: ready[name]["seconds"] for name in timed}
    rounds = max(_LEAST, min(pairs, int(_SECONDS / sum(expected.values()))))
    seconds = time_all(timed, expected, rounds)
    names = [e.name for e in own if e.name in seconds]
    for name, times in seconds.items():
        ratios = {our: ratio(seconds[our], times) for our in names}
        found[name] |= {"ms": sorted(times)[len(times) // 2] * 1e3, "ratios": ratios}
    again = found.pop(first.name + AGAIN).get("ratios", {})
    cell: Cell = {"references": names, "rounds": rounds, "aa": again.get(first.name), "engines": found}
    if PRODUCTS.name in seconds:
        cell["roof"] = _roof(found.pop(PRODUCTS.name), first.name, ready[PRODUCTS.name]["flops"])
    return cell


def _roof(alone: Cell, our: str, flops: int) -> Cell:
    """The products' own speed, and which share of our time they are: [median, low, high]."""
    median, low, high = alone["ratios"][our]
    share = [round(1 / x, 4) for x in (median, high, low)]
    return {"gflop": flops / 1e9, "gflop_s": flops / alone["ms"] / 1e6, "ms": alone["ms"], "share": share}


if __name__ == "__main__":
    main()
