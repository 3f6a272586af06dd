"""The matrix as tables: on the terminal, in docs/coverage.md, and as JSON with every missed site and difference."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from benchmarks.coverage.cells import OVERLAYS, PEERS, ROOT, Group, code, groups, result
from onnxsmith.cli import console
from tests.coverage.exporters import EXPORTERS
from tests.coverage.families import FAMILIES

DOCUMENT, RESULTS = ROOT / "docs" / "coverage.md", ROOT / "benchmarks" / "results" / "coverage.json"
_VERSIONS = ("torch", "onnxscript", "transformers", "onnx")
_ONLY_LEFT = r"(\d+ of \d+ \w+(; )?)*"  # sites left, and nothing else
_COLUMNS = ["family", "attention", *EXPORTERS]
_HEAD = """# Coverage

`make coverage` exports tiny random models of many families in every way that PyTorch has, optimizes each export, and
compares the result with PyTorch in float64 on the positions that count: at the exported size and at two others, with
padding on the left and on the right. Attention, norm and activation sites are counted in each model's own definition,
and every node of the export must be accounted for exactly once in what the result records of its rewrites.

| a cell says | and means |
| --- | --- |
| all | every site is fused, and every output is the same |
| all; baked | the same, at the exported size: the exporter made others impossible, whoever runs the file |
| all; *n* inexpressible | the same; *n* norms equal no standard operator, are reported as such and left as they are |
| *n* missed | *n* sites are not fused |
| miscounted | the result has fewer or more operators of a kind than the model has sites |
| unaccounted | nodes of the export are lost from the record of the rewrites, or counted twice |
| differs, crash | outputs differ, or there are none |
| - | PyTorch itself cannot make this export |
| (nothing) | not tried |

Families with a star are a gate: all of their cells must be fused.
"""


def write() -> None:
    """Write the document and the JSON, from the cells that the code as it stands has been measured on."""
    found = list(_cells())
    text = [_HEAD, _summary(found)]
    for library, some in _by_library(found).items():
        text += [f"\n## transformers {library}\n", _summary(some), "", *_markdown(_COLUMNS, _rows(some))]
    if left := [f"- {_line(cell)}" for cell in found if not _settled(cell)]:
        text += ["\n## What is left\n", *left]
    if PEERS.exists():
        text += ["\n## Other optimizers\n", *_peers(json.loads(PEERS.read_text(encoding="utf-8")), found)]
    DOCUMENT.write_text("\n".join(text) + "\n", encoding="utf-8")
    kept = {"code": code(), "versions": {name: version(name) for name in _VERSIONS}, "cells": found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def show() -> None:
    """Print the tables."""
    found = list(_cells())
    for library, some in _by_library(found).items():
        console.table(f"transformers {library}", _COLUMNS, _rows(some))
    console.note(_summary(found))


def failing(group: Group) -> Iterator[str]:
    """One line for each cell that is not fine: what was missed and why, what differs, what broke."""
    return (_line(cell) for cell in _of(group) if not _settled(cell))


def _settled(cell: dict[str, Any]) -> bool:
    return bool(cell["fine"]) or "export" in cell


def _by_library(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [cell for cell in cells if cell["library"] == name] for name in OVERLAYS}


def _cells() -> Iterator[dict[str, Any]]:
    return (cell for group in groups() for cell in _of(group))


def _of(group: Group) -> Iterator[dict[str, Any]]:
    for exporter in group.exporters():
        cell = _cell(group, exporter)
        if cell is not None:
            yield {"library": group.library, "family": group.family, "attention": group.attention, **cell}


def _cell(group: Group, exporter: str) -> dict[str, Any] | None:
    reason = group.folder / f"{exporter}.error"
    if reason.exists():
        return {"exporter": exporter, "fine": False, "export": reason.read_text(encoding="utf-8")}
    known = result(group, exporter)
    if known is None or known["code"] != code():
        return None
    missed = [site for site in known["sites"] if site["status"] == "missed"]
    worst = max((one["rms"] for one in known["compared"]), default=None)
    return {
        "exporter": exporter,
        "fine": known["fine"],
        "sites": dict(Counter(site["kind"] for site in known["sites"])),
        "inexpressible": sum(site["status"] == "inexpressible" for site in known["sites"]),
        "missed": [{key: site[key] for key in ("kind", "where", "rule", "reason")} for site in missed],
        "differs": [one for one in known["compared"] if not one["fine"]],
        "worst_rms_ratio": worst,
        "compared": len(known["compared"]),
        "crash": known["crash"],
        "miscounted": known["miscounted"],
        "unaccounted": known["unaccounted"],
        "baked": known["baked"],
        "notes": known["notes"],
    }


def _rows(cells: list[dict[str, Any]]) -> list[list[str]]:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        rows.setdefault((cell["family"], cell["attention"]), {})[cell["exporter"]] = _verdict(cell)
    star = {name: name + "*" * family.gate for name, family in FAMILIES.items()}
    return [[star[name], attention, *(row.get(e, "") for e in EXPORTERS)] for (name, attention), row in rows.items()]


def _verdict(cell: dict[str, Any]) -> str:
    if "export" in cell:
        return "-"
    if cell["crash"]:
        return "crash"
    if cell["differs"]:
        return "differs"
    if cell["missed"]:
        return f"{len(cell['missed'])} missed"
    if cell["miscounted"]:
        return "miscounted"
    if cell["unaccounted"]:
        return "unaccounted"
    inexpressible = [f"{cell['inexpressible']} inexpressible"] if cell["inexpressible"] else []
    return "; ".join(["all", *(["baked"] if cell["baked"] else []), *inexpressible])


def _summary(cells: list[dict[str, Any]]) -> str:
    made = [cell for cell in cells if "export" not in cell]
    gate = [cell for cell in made if FAMILIES[cell["family"]].gate]
    texts = [f"{sum(cell['fine'] for cell in some)} of {len(some)}" for some in (made, gate)]
    return f"{texts[0]} exports are fused with the same outputs and every node accounted for; {texts[1]} of the gate."


def _peers(files: list[dict[str, Any]], cells: list[dict[str, Any]]) -> Iterator[str]:
    """How many files each tool fuses whole, by exporter, and how many of its results compute something else or fail."""
    ours = {_key(cell): bool(cell["fine"]) for cell in cells}
    files = [one for one in files if _key(one) in ours]
    exporters = list(dict.fromkeys(one["exporter"] for one in files))
    names = list(dict.fromkeys(one["family"] for one in files))
    yield f"The same rule on the same {len(files)} files of the gate ({', '.join(names)}): every site is one operator,"
    yield "and every output is the same.\n"
    of = [f"{e} ({sum(one['exporter'] == e for one in files)})" for e in exporters]
    rows = [["onnxsmith", *_counts(exporters, [one for one in files if ours[_key(one)]]), ""]]
    for tool in dict.fromkeys(tool for one in files for tool in one["why"]):
        broken = sum(not re.fullmatch(_ONLY_LEFT, one["why"].get(tool, "")) for one in files)
        rows.append([tool, *_counts(exporters, [one for one in files if tool in one["fused"]]), str(broken)])
    yield from _markdown(["tool", *of, f"all ({len(files)})", "outputs differ, or no result"], rows)


def _key(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(cell[key] for key in ("library", "family", "attention", "exporter"))


def _counts(exporters: list[str], files: list[dict[str, Any]]) -> list[str]:
    return [*(str(sum(one["exporter"] == e for one in files)) for e in exporters), str(len(files))]


def _markdown(columns: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(text.replace("*", "\\*") for text in row) + " |"


def _line(cell: dict[str, Any]) -> str:
    parts = [f"CRASH {cell['crash']}"] if cell["crash"] else []
    reasons = Counter(f"{site['kind']} [{site['rule']}: {site['reason']}]" for site in cell["missed"])
    parts += [f"MISSED {n}x {reason}" for reason, n in reasons.items()]
    if cell["differs"]:
        worst = max(cell["differs"], key=lambda one: float(one["rms"]))
        parts.append(
            f"PARITY {len(cell['differs'])}/{cell['compared']}, worst {worst['batch']} {worst['rms']:.3g}x rms"
        )
    parts += [f"COUNT {text}" for text in cell["miscounted"]]
    parts += [f"ACCOUNT {text}" for text in cell["unaccounted"]]
    gate = " GATE" if FAMILIES[cell["family"]].gate else ""
    names = " ".join(_key(cell)[1:])
    return f"{names} transformers-{cell['library']}{gate}: {'; '.join(parts)}"
