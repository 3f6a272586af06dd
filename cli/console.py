"""Printing: data on stdout, talk on stderr, and nothing that a model's file contains is taken as markup."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160  # columns of a table that is written to a file or a pipe


def plain(text: object) -> str:
    """``text`` as one line of printable characters.

    Names come from model files: without this, an escape sequence in one could rewrite the user's terminal.
    """
    line = " ".join(str(text).split())
    return "".join(char for char in line if char.isprintable())


def emit(text: object) -> None:
    """Write one line of data to stdout."""
    click.echo(plain(text))


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` to stdout as JSON: control characters escaped, NaN and infinity as null."""
    click.echo(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    """``value`` with null for the numbers that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def note(text: object) -> None:
    """Tell the user something on stderr."""
    click.echo(plain(text), err=True)


def error(text: object) -> None:
    """Write the one line that says what went wrong."""
    note(f"error: {plain(text)}")


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on stderr that a long step is under way; only where somebody watches, on a terminal."""
    console = _console(to_stderr=True)
    with console.status(plain(text)) if console.is_terminal else nullcontext():
        yield


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr, only on a terminal. Yields what moves it: steps done, steps in all, and what comes now."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = _console(to_stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(plain(text), total=None)
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=f"{plain(text)}: {plain(what)}"
            )
    finally:
        console.show_cursor()  # which stays hidden when Ctrl-C comes while the bar starts


def heading(text: str) -> None:
    """Begin a part of a long output on stdout."""
    from rich.text import Text

    _console(to_stderr=False).print(Text(f"\n{plain(text)}", style="bold"))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout. A column whose name starts with ``>`` is aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(title=plain(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        grid.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(plain, row))
    _console(to_stderr=False).print(grid)


@cache
def _console(*, to_stderr: bool) -> Console:
    from rich.console import Console

    terminal = (sys.stderr if to_stderr else sys.stdout).isatty()
    width = None if terminal else PIPE_WIDTH
    return Console(stderr=to_stderr, width=width, markup=False, emoji=False, highlight=False)
