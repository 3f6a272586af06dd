"""A run as a table: on the terminal, as JSON, and in docs/benchmarks.md between marks of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench.engines import ROOT
from benchmarks.bench.report import rewritten
from benchmarks.generate.engines import SUBJECTS

BEGIN, END = "<!-- make bench-generate writes from here -->", "<!-- to here, make bench-generate -->"
Run = dict[str, Any]
_COLUMNS = ("engine", "first token, ms", "ratio", "tokens/s", "ratio", "of the memory roof", "same tokens")
_WHOLE = ("engine", "seconds a batch", "ratio", "same tokens")


def write(run: Run, root: Path) -> None:
    """Write benchmarks/results/generate.json and our part of docs/benchmarks.md below ``root``."""
    results, document = root / "benchmarks" / "results" / "generate.json", root / "docs" / "benchmarks.md"
    for path in (results, document):
        path.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    document.write_text(rewritten(text, BEGIN, END, markdown(run)), encoding="utf-8")


def line(cell: Run) -> str:
    """A case in one line, as it comes."""
    parts = []
    for name, found in cell["engines"].items():
        if "why" in found:
            parts.append(f"{name}: {found['why']}")
        elif "step" in found:
            parts.append(f"{name} {found['first']:.0f} ms, {speed(found, cell['batch']):.1f} tok/s")
        else:
            parts.append(f"{name} {found['whole']:.0f} ms")
    return f"{title(cell)}: {'; '.join(parts)}"


def speed(found: Run, batch: int) -> float:
    """Tokens a second of all rows together, after the first."""
    return float(batch * 1e3 / found["step"])


def title(cell: Run) -> str:
    beams = f", {cell['beams']} beams" if cell["beams"] > 1 else ""
    prompt = f"prompts of {cell['prompt']}" if _is_decoder(cell) else f"sources of up to {cell['prompt']}"
    return f"{SUBJECTS[cell['model']].title}, batch {cell['batch']}, {prompt}, {cell['new']} new tokens{beams}"


def _is_decoder(cell: Run) -> bool:
    return all(engine.adapter != "ctranslate" for engine in SUBJECTS[cell["model"]].engines)


def markdown(run: Run) -> Iterator[str]:
    """The page's part: the machine, a table a case, and how flat the time of a token is."""
    where = run["machine"]
    yield (
        f"Machine: {where['processor']}, {where['cores']} cores, {where['threads']} threads; reads "
        f"{where['read_gb_s']} GB/s."
    )
    versions = {**where["versions"], **where["peers"]}
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}."
    yield (
        f"Ratios are our time over the engine's, of the first engine of its precision: medians over {run['rounds']} "
        "rounds with bootstrap 95% intervals; below 1, ours is faster. Sources are of different lengths, so our "
        "encoder-decoders are made with --unpad. The memory roof is read anew before each run."
    )
    for cell in run["cells"]:
        yield from _flat(cell["flat"]) if "flat" in cell else _case(cell)


def _case(cell: Run) -> Iterator[str]:
    yield f"\n#### {title(cell)}\n"
    columns = _COLUMNS if _is_decoder(cell) else _WHOLE
    yield from _table(columns, (_row(name, found, cell) for name, found in cell["engines"].items()))


def _row(name: str, found: Run, cell: Run) -> tuple[str, ...]:
    if "why" in found:
        return (name, f"not timed: {found['why']}")
    ratios = {key: _ratio(values) for key, values in found["ratios"].items()}
    same = f"{found['same']:.0%}" if "same" in found else ""
    if not _is_decoder(cell):
        return name, f"{found['whole'] / 1e3:.3f}", ratios.get("whole", ""), same
    roof = f"{found['roof']:.0%}" if "roof" in found else ""
    step = f"{speed(found, cell['batch']):.1f}"
    return name, f"{found['first']:.1f}", ratios.get("first", ""), step, ratios.get("step", ""), roof, same


def _ratio(found: list[float]) -> str:
    median, low, high = found
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def _flat(flat: Run) -> Iterator[str]:
    yield "\n#### Tokens/s over the first new ones, batch 1\n"
    lengths = list(next(iter(flat.values())))
    rows = ((name, *(f"{rates[length]:.1f}" for length in lengths)) for name, rates in flat.items())
    yield from _table(("engine", *lengths), rows)


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join((*row, *[''] * (len(columns) - len(row))))} |"
