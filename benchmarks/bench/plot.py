"""The plot of a run, in the peers' environment, which has matplotlib:

build/bench-peers/bin/python benchmarks/bench/plot.py RESULTS PLOT.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

GROUPS = {"fp32": "fp32", "low": "low precision"}
COLORS = ("tab:blue", "tab:orange")  # of what is told first and second of ours
TICKS = (0.1, 0.2, 0.5, 1, 2)  # of every panel, so that they can be compared


def main(results: Path, plot: Path) -> None:
    plt.rcParams |= {"svg.hashsalt": "onnxsmith", "svg.fonttype": "none", "font.size": 8}
    cells = json.loads(results.read_text(encoding="utf-8"))["cells"]
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    size = (3.2 * max(1, len(models)) + 1.5, 5)
    figure, panels = plt.subplots(len(GROUPS), max(1, len(models)), figsize=size, sharey="row", squeeze=False)
    for row, (group, title) in zip(panels, GROUPS.items(), strict=True):
        for panel, model in zip(row, models, strict=False):
            some = [cell for cell in cells if (cell["group"], cell["model"]) == (group, model)]
            _draw(panel, some)
            panel.set_title(f"{model}, {title}")
    figure.supxlabel(
        "time of onnxsmith over the engine's (a dot a shape, with its 95% interval; below 1 ours is faster); "
        "orange: int8 with samples to calibrate"
    )
    figure.tight_layout()
    figure.savefig(plot, metadata={"Date": None})


def _draw(panel: Any, cells: list[dict[str, Any]]) -> None:
    """One row an engine, one dot a shape, its interval as a bar; the line is at 1. Each of ours has its color."""
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    panel.minorticks_off()
    for cell in cells:
        for name, found in cell["engines"].items():
            for our, color in zip(cell["references"], COLORS, strict=False):
                if name not in cell["references"] and our in found.get("ratios", {}):
                    median, low, high = found["ratios"][our]
                    bar = [[median - low], [high - median]]
                    panel.errorbar([median], [name], xerr=bar, fmt="o", color=color, markersize=3, alpha=0.6)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
