"""The page: templates filled in, and a policy that lets nothing in but what stands on it."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnxsmith.compiler.atomic import replacing
from onnxsmith.compiler.compare.page.graph import sides
from onnxsmith.compiler.compare.page.plots import plots
from onnxsmith.compiler.compare.page.text import clean
from onnxsmith.compiler.compare.report import Comparison
from onnxsmith.errors import BadInput

_HERE = "onnxsmith.compiler.compare.page"


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page as one file. Raises BadInput where it cannot be written, or matplotlib is not installed."""
    text = render(comparison)
    try:
        with replacing(path) as made:
            made.write_text(text, encoding="utf-8")
    except OSError as e:
        raise BadInput(f"cannot write {path}: {e.strerror or e}") from e


def render(comparison: Comparison) -> str:
    """The page as HTML. Every name is escaped, and cut where it is long. Raises BadInput without matplotlib."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"clean": clean, "megabytes": _megabytes, "maybe": _maybe}
    style, script = _read("page.css"), _read("page.js")
    return environment.from_string(_read("page.html.j2")).render(
        comparison=comparison,
        plots=[(title, told, Markup(svg)) for title, told, svg in plots(comparison)],
        graphs=[(v, sides(v.changes)) for v in comparison.variants if v.changes],
        operators=_operators(comparison),
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which exactly this style and this script run, and nothing is loaded."""
    rules = {
        "default-src": "'none'",
        "style-src": f"'sha256-{_digest(style)}'",
        "script-src": f"'sha256-{_digest(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return files(_HERE).joinpath(name).read_text(encoding="utf-8")


def _operators(comparison: Comparison) -> list[tuple[str, list[int | str]]]:
    """Rows of the histogram: an operator, and how many nodes of it every variant with a graph has."""
    tables = [v.structure.operators for v in comparison.variants if v.structure]
    most = {op: max(t.get(op, 0) for t in tables) for t in tables for op in t}
    return [(op, [t.get(op, "") for t in tables]) for op in sorted(most, key=lambda op: -most[op])]


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def _maybe(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)
