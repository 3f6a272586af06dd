"""The coverage matrix: ``make coverage``. Exports what is missing, checks what is stale, and writes the tables.

The reasons of every cell that is not fine are printed as it comes.
Every export and every check runs in a child process with limited memory and time; what is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

from benchmarks.coverage import report
from benchmarks.coverage.cells import OVERLAYS, ROOT, X_TRANSFORMERS, Group, code, groups, result
from onnxsmith.cli import console
from tests.coverage.batches import BATCHES
from tests.coverage.cell import Cell

_MEMORY_BYTES = 12 << 30  # of address space: torch and onnxruntime map far more than they touch
_SECONDS = 1200


def main() -> None:
    options = _options()
    wanted = [g for g in groups() if _chosen(g, options)]
    for n, group in enumerate(wanted, 1):
        exporters = [e for e in group.exporters() if not options.exporter or e in options.exporter]
        console.note(f"{n}/{len(wanted)} transformers {group.library}: {group.family}, {group.attention}")
        _export(group, exporters)
        _check(group, exporters)
        for line in report.failing(group):
            console.error(line)
    report.show()
    report.write()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the coverage matrix.")
    for name in ("family", "exporter", "library"):
        parser.add_argument(f"--{name}", action="append", help=f"only this {name} (may be given again)")
    return parser.parse_args()


def _chosen(group: Group, options: argparse.Namespace) -> bool:
    return (not options.family or group.family in options.family) and (
        not options.library or group.library in options.library
    )


def _export(group: Group, exporters: list[str]) -> None:
    made = {path.stem for path in group.folder.glob("*") if path.suffix in (".onnx", ".error")}
    todo = [e for e in exporters if e not in made]
    if not todo and ((group.folder / BATCHES).exists() or not list(group.folder.glob("*.onnx"))):
        return
    overlay = OVERLAYS[group.library]
    paths = [ROOT, *([overlay] if overlay else []), X_TRANSFORMERS]
    words = ["benchmarks.coverage.export_cells", group.family, group.attention, str(group.folder), *todo]
    reason = _child(words, os.pathsep.join(map(str, paths)))
    if reason:
        console.error(f"export of {group.family}, {group.attention}: {reason}")


def _check(group: Group, exporters: list[str]) -> None:
    todo = [e for e in exporters if (group.folder / f"{e}.onnx").exists() and _stale(group, e)]
    while todo:
        words = ["benchmarks.coverage.check_cells", group.family, str(group.folder), code(), *todo]
        reason = _child(words, str(ROOT))
        todo = [e for e in todo if _stale(group, e)]
        if todo:  # the child died of the first one
            crash = {"code": code(), **Cell(crash=reason).to_json()}
            (group.folder / f"{todo.pop(0)}.json").write_text(json.dumps(crash))


def _stale(group: Group, exporter: str) -> bool:
    known = result(group, exporter)
    return known is None or known["code"] != code()


def _child(words: list[str], path: str) -> str:
    """Run a module of this folder; why it failed, "" when it did not."""
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=environment,
            cwd=ROOT,
            timeout=_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        return f"more than {_SECONDS} seconds"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    main()
