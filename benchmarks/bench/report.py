"""The last run as tables: on the terminal, in docs/benchmarks.md, as JSON and as a plot."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench.engines import GROUPS, PEERS, ROOT
from benchmarks.bench.subjects import SUBJECTS
from onnxsmith.cli import console

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
LOST = 1.05  # a cell is lost when its interval lies wholly above
TITLES = {"fp32": "fp32", "low": "low precision"}
_SUMMARY = ("engine", ">geometric mean", ">best", ">worst", ">cells", ">lost", ">least cosine")
Run = dict[str, Any]


def write(run: Run, root: Path) -> None:
    """Write benchmarks/results/bench.json, the plot, and the generated part of docs/benchmarks.md below ``root``."""
    results, document = root / "benchmarks" / "results" / "bench.json", root / "docs" / "benchmarks.md"
    for path in (results, document):
        path.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    plot = Path(__file__).with_name("plot.py")
    subprocess.run([PEERS, plot, results, document.with_suffix(".svg")], check=True)
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    document.write_text(rewritten(text, BEGIN, END, _markdown(run)), encoding="utf-8")


def rewritten(text: str, begin: str, end: str, lines: Iterable[str]) -> str:
    """A text with other lines between its two marks."""
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return "\n".join([before + begin, "", *lines, "", end]) + after


def show(run: Run) -> None:
    """Print the summary."""
    for group in GROUPS:
        for our in _references(run["cells"], group):
            console.table(f"{TITLES[group]}: time of {our} over", _SUMMARY, summary(run["cells"], group, our))


def line(cell: Run) -> str:
    """A cell in one line, as it comes."""
    times = [f"{name} {found['ms']:.2f}" for name, found in cell["engines"].items() if "ms" in found]
    faults = [f"{name}: {found['why']}" for name, found in cell["engines"].items() if "why" in found]
    where = f"{cell['model']} {cell['group']} {cell['batch']}x{cell['length']}"
    roof = f"; {_share(cell)} of the products' roof" if "roof" in cell else ""
    return f"{where}, ms: {', '.join(times)}{roof}" + "".join(f"; {fault}" for fault in faults)


def summary(cells: list[Run], group: str, our: str) -> list[tuple[str, ...]]:
    """For each other engine, over all cells that it has: our time over its own; and how far its outputs are off."""
    rows: list[tuple[str, ...]] = []
    for name in _others(cells, group, our):
        found = [cell["engines"][name] for cell in cells if cell["group"] == group and _timed(cell, name, our)]
        ratios = [engine["ratios"][our] for engine in found]
        middle = [median for median, _, _ in ratios]
        mean = math.exp(sum(map(math.log, middle)) / len(middle))
        lost = sum(low > LOST for _, low, _ in ratios)
        numbers = (f"{mean:.3f}", f"{min(middle):.2f}", f"{max(middle):.2f}", str(len(middle)), str(lost))
        rows.append((name, *numbers, _least([engine["cosine"] for engine in found if "cosine" in engine])))
    return rows


def _least(cosines: list[float]) -> str:
    return f"{min(cosines):.4f}" if cosines else "-"


def _timed(cell: Run, name: str, our: str) -> bool:
    return our in cell["engines"].get(name, {}).get("ratios", {})


def _others(cells: list[Run], group: str, our: str) -> list[str]:
    """The engines of a group that one of ours is compared with, in the order of their appearance."""
    some = [cell for cell in cells if cell["group"] == group]
    names = dict.fromkeys(name for cell in some for name in cell["engines"] if name != our)
    return [name for name in names if any(_timed(cell, name, our) for cell in some)]


def _references(cells: list[Run], group: str) -> list[str]:
    """Ours that the engines of a group are compared with; what only some cells have comes last."""
    return list(dict.fromkeys(our for cell in cells if cell["group"] == group for our in cell["references"]))


def _markdown(run: Run) -> Iterator[str]:
    yield from _machine(run)
    for group in GROUPS:
        cells = [cell for cell in run["cells"] if cell["group"] == group]
        for our in _references(cells, group):
            yield f"### {TITLES[group].capitalize()}: time of {our} over the engine's\n"
            yield from _table([name.strip(">") for name in _SUMMARY], summary(cells, group, our))
            names = _others(cells, group, our)
            for model in dict.fromkeys(cell["model"] for cell in cells):
                some = [cell for cell in cells if cell["model"] == model]
                yield f"\n#### {SUBJECTS[model].title}, {our.removeprefix('onnxsmith ')}\n"
                yield from _table(_columns(names), [_row(cell, names, our) for cell in some])
            yield ""
        yield from _faults(cells)


def _machine(run: Run) -> Iterator[str]:
    where = run["machine"]
    yield "![Time of onnxsmith over each engine's, per model](benchmarks.svg)\n"
    yield (
        f"Machine: {where['processor']}, {where['cores']} cores, "
        f"{where['threads']} threads, {', '.join(where['instruction_sets'])}; "
        f"reads {where['read_gb_s']} GB/s; {where['system']}."
    )
    versions = {**where["peers"], **where["versions"]}
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}."
    fewest, most = min(c["rounds"] for c in run["cells"]), max(c["rounds"] for c in run["cells"])
    rounds = f"{most}" if fewest == most else f"{fewest} to {most}"
    yield f"Ratios are medians over {rounds} rounds, with bootstrap 95% intervals; below 1, ours is faster.\n"


def _columns(names: list[str]) -> list[str]:
    return ["batch x tokens", "ours, ms", "A/A", "share of roof", *names]


def _row(cell: Run, names: list[str], our: str) -> list[str]:
    """One shape: our time, the noise, the products' share of our time, and a ratio for each engine."""
    own, is_first = cell["engines"].get(our, {}).get("ms"), our in cell["references"][:1]  # only that is timed twice
    noise = f"{cell['aa'][1]:.2f}–{cell['aa'][2]:.2f}" if cell["aa"] and is_first else ""
    ratios = [_ratio(cell["engines"][name]["ratios"][our]) if _timed(cell, name, our) else "-" for name in names]
    shape = f"{cell['batch']} x {cell['length']}"
    return [shape, f"{own:.2f}" if own else "-", noise, _share(cell) if "roof" in cell else "", *ratios]


def _ratio(found: list[float]) -> str:
    median, low, high = found
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def _share(cell: Run) -> str:
    return f"{cell['roof']['share'][0]:.0%} of {cell['roof']['gflop_s']:.0f} GFLOP/s"


def _faults(cells: list[Run]) -> Iterator[str]:
    """Once each: the engines that were not timed, and why."""
    found = {
        f"- {SUBJECTS[cell['model']].title}, {name}: {engine['why']}"
        for cell in cells
        for name, engine in cell["engines"].items()
        if "why" in engine
    }
    if found:
        yield "Not timed:\n"
        yield from sorted(found)
        yield ""


def _table(columns: list[str], rows: list[Any]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
