"""The plots of a comparison as SVG by matplotlib, cleaned so that a strict Content-Security-Policy lets them stand."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsmith.compiler.compare.page.text import clean
from onnxsmith.compiler.compare.report import Comparison, Variant
from onnxsmith.compiler.figures import PAGE, need_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r'url\(#([^)]+)\)|href="#([^"]+)"')
_INK = "#010203"  # becomes the page's own text colour, light or dark
_SIZE = (7.0, 3.4)  # inches
_NAME = 40  # characters of a variant in a legend
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold dollars
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "savefig.facecolor": "none",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9.0,
}
Draw = Callable[["Axes", Comparison], None]


def plots(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Title, explanation and SVG of every plot that there are figures for. Raises BadInput without matplotlib."""
    of_layers = any(v.layers for v in comparison.variants)
    of_roofs = comparison.roofs is not None and any(v.operators for v in comparison.variants)
    for wanted, title, told, draw in (
        (
            of_layers,
            "Error over depth",
            "Relative RMS error of inner values against float64; dots break the rule of verification.",
            _depth,
        ),
        (True, "Latency", "Single runs, interleaved with the reference: the share that took no longer.", _latency),
        (
            True,
            "Latency and error",
            "Relative RMS error against float64 over time; area is size, crosses are dominated.",
            _pareto,
        ),
        (of_roofs, "Roofline", "Products and attention by operator, under what this machine reaches.", _roofline),
    ):
        if wanted:
            yield title, told, draw_svg(draw, comparison)


def draw_svg(draw: Draw, comparison: Comparison) -> str:
    """One plot as an SVG element."""
    need_matplotlib(PAGE)
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    salt = draw.__name__
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        draw(axes, comparison)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        for axis in (axes.xaxis, axes.yaxis):  # the default formatter of a logarithm writes math
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return cleaned(file.getvalue().decode(), salt.strip("_"))


def cleaned(svg: str, prefix: str) -> str:
    """The drawing without metadata and style attributes, its text in the page's colour, its ids its own."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    root = ET.fromstring(svg)
    used = {name for pair in _REFERENCE.findall(svg) for name in pair if name}
    for parent in root.iter():
        for child in [c for c in parent if c.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    for element in root.iter():
        for part in element.attrib.pop("style", "").split(";"):
            name, _, value = (piece.strip() for piece in part.partition(":"))
            if name == "font":
                element.set("font-size", value.split()[0])
            elif name:
                element.set(name, value)
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{own}")
        for key, value in list(element.attrib.items()):
            if key == f"{{{_LINK}}}href" or value.startswith("url(#"):
                element.set(key, value.replace("#", f"#{prefix}-"))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    return ET.tostring(root, encoding="unicode").replace(_INK, "currentColor")


def _label(variant: Variant) -> str:
    return clean(variant.name, _NAME)


def _depth(axes: Axes, comparison: Comparison) -> None:
    for variant in comparison.variants:
        last = max(len(variant.layers) - 1, 1)
        seen = [(i / last, layer) for i, layer in enumerate(variant.layers) if layer.relative_rms > 0]
        if not seen:
            continue
        at, errors = [i for i, _ in seen], [layer.relative_rms for _, layer in seen]
        (line,) = axes.plot(at, errors, label=_label(variant), linewidth=1.4)
        bad = [(i, layer.relative_rms) for i, layer in seen if not layer.fine]
        axes.plot(*zip(*bad, strict=True) if bad else ([], []), ".", color=line.get_color(), markersize=4)
    axes.set(yscale="log", xlabel="depth, from inputs to outputs", ylabel="relative RMS error")


def _latency(axes: Axes, comparison: Comparison) -> None:
    for variant in comparison.variants:
        if variant.speeds:
            times = np.sort(variant.speeds[0].times_ms)
            axes.step(times, np.arange(1, len(times) + 1) / len(times), where="post", label=_label(variant))
    axes.set(xlabel="ms", ylabel="share of runs")


def _pareto(axes: Axes, comparison: Comparison) -> None:
    largest = max((p.size or 0 for p in comparison.pareto), default=0) or 1
    for variant in comparison.variants:
        points = [p for p in comparison.pareto if p.variant == variant.name]
        if not points:
            continue
        x, y = [p.ms for p in points], [max(p.error or 0.0, 1e-9) for p in points]
        area = [40 + 200 * (p.size or 0) / largest for p in points]
        axes.scatter(x, y, s=area, alpha=0.6, label=_label(variant))
        beaten = [i for i, p in enumerate(points) if p.by]
        axes.plot([x[i] for i in beaten], [y[i] for i in beaten], "x", color=_INK)
        for point, a, b in zip(points, x, y, strict=True):
            axes.annotate(clean(point.at, 20), (a, b), textcoords="offset points", xytext=(6, 4), fontsize=7)
    axes.set(xlabel="ms", ylabel="relative RMS error", yscale="log")


def _roofline(axes: Axes, comparison: Comparison) -> None:
    roofs = comparison.roofs
    assert roofs is not None
    intensity = np.geomspace(0.1, 1000, 100)
    axes.plot(intensity, np.minimum(roofs.gflop_s, intensity * roofs.gigabytes_s), color=_INK, linewidth=1)
    for variant in comparison.variants:
        found: list[Any] = [o for o in variant.operators if o.gflop and o.ms and o.megabytes]
        if found:
            x = [1e3 * o.gflop / o.megabytes for o in found]
            axes.scatter(x, [1e3 * o.gflop / o.ms for o in found], s=24, label=_label(variant))
    axes.set(xlabel="flop per byte", ylabel="GFLOP/s", xscale="log", yscale="log")
