"""The loss curve of a training as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from onnxsmith.compiler.atomic import replacing

_SMOOTHED = 50  # windows that a curve is divided into
_WIDTH = 75  # characters of a title in a line


def draw_losses(title: str, runs: Mapping[str, Sequence[float]], picture: Path) -> None:
    """Draw the loss of every step of each run, and its mean over windows of steps, into a PNG or SVG."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for i, (name, losses) in enumerate(runs.items()):
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color=f"C{i}", alpha=0.2, linewidth=0.7)
        windows = np.array_split(np.stack((steps, np.asarray(losses))), min(len(losses), _SMOOTHED), axis=1)
        axes.plot(*np.stack([window.mean(axis=1) for window in windows], axis=1), color=f"C{i}", label=name)
    axes.set(title=fill(title, _WIDTH), xlabel="step", ylabel="loss (nats)")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend()
    with replacing(picture) as made:
        figure.savefig(made)
