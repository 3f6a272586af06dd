"""Attention weights as a picture, for ``onnxsmith run --attention``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxsmith
from onnxsmith.cli import console, files, generate
from onnxsmith.compiler.figures import need_matplotlib
from onnxsmith.errors import BadUsage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from onnxsmith.runtime.tasks.attention import AttentionMap

_FORMATS = (".png", ".svg", ".pdf")
_TOKEN, _PANEL, _LABELS = 0.13, (1.1, 4.0), 0.9  # inches: of a token, of a panel at least and at most, beside panels
_POINTS = 72  # in an inch
_SMALLEST, _LARGEST = 1.0, 8.0  # points of the tokens' letters


def run(path: Path, texts: Sequence[str], picture: Path, settings: Mapping[str, Any]) -> None:
    """Draw what the model attends to in the one text. Raises BadUsage for another number of texts, or format."""
    if len(texts) != 1:
        raise BadUsage(f"--attention draws one --text, found {len(texts)}; give one")
    if picture.suffix not in _FORMATS:
        raise BadUsage(f"{picture}: a picture ends with one of {', '.join(_FORMATS)}")
    files.check_writable(picture)
    need_matplotlib("--attention")
    from onnxsmith.compiler.atomic import replacing
    from onnxsmith.compiler.attention_weights import showing_attention

    model = showing_attention(onnxsmith.load(path))
    figure = draw(model.attention_maps(texts[0], **generate.given(settings)))
    with replacing(picture) as made:
        figure.savefig(made)
    console.note(f"wrote {picture}")


def draw(maps: Sequence[AttentionMap]) -> Figure:
    """A row for each layer, a column for each head: queries downwards, keys across, dark where a weight is 1."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [(found, layer) for found in maps for layer in range(len(found.weights))]
    columns = max(found.weights.shape[1] for found in maps)
    width, heights = max(_inches(found.keys) for found in maps), [_inches(found.queries) for found, _ in rows]
    size = (columns * width + 2 * _LABELS, sum(heights) + _LABELS * len(maps) + 0.2 * len(rows))
    with matplotlib.rc_context({"text.parse_math": False, "font.size": _LARGEST, "axes.titlesize": _LARGEST}):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for panels, (found, layer), height in zip(grid, rows, heights, strict=True):
            for head, panel in enumerate(panels):
                if head >= found.weights.shape[1]:
                    panel.set_axis_off()
                    continue
                image = panel.imshow(found.weights[layer, head], vmin=0, vmax=1, cmap="Blues", aspect="auto")
                panel.set_title(f"layer {layer}, head {head}")
                last = layer == len(found.weights) - 1
                _name_tokens(panel, found, (width, height), left=head == 0, below=last)
            panels[0].set_ylabel(found.kind.replace("_", " "))
        figure.colorbar(image, ax=grid, fraction=0.01, pad=0.01, aspect=40, label="weight")
    return figure


def _inches(tokens: Sequence[str]) -> float:
    """How long the side of a panel with these tokens is."""
    least, most = _PANEL
    return min(max(_TOKEN * len(tokens), least), most)


def _name_tokens(panel: Axes, found: AttentionMap, size: tuple[float, float], *, left: bool, below: bool) -> None:
    """The tokens along the axes; panels side by side, and layers above one another, share theirs."""
    width, height = (
        min(max(0.8 * _POINTS * side / len(tokens), _SMALLEST), _LARGEST)
        for side, tokens in zip(size, (found.keys, found.queries), strict=True)
    )
    panel.set_xticks(range(len(found.keys)), found.keys if below else [], rotation=90, fontsize=width)
    panel.set_yticks(range(len(found.queries)), found.queries if left else [], fontsize=height)
