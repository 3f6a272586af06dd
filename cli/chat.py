"""``onnxsmith run --chat``: a talk with a model, a line at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from onnxsmith.cli import console
from onnxsmith.cli.generate import Settings, given, note_times, shown
from onnxsmith.errors import BadInput

if TYPE_CHECKING:
    from onnxsmith.runtime.generation.result import Generated
    from onnxsmith.runtime.model import LoadedModel

_NEW = "/new"


def talk(model: LoadedModel, settings: Settings) -> None:
    """Answer lines from standard input until it ends. Ctrl-C ends an answer, and between answers the command.

    Raises:
        BadInput: the model has no cache, no tokenizer or no chat template, or the talk is longer than its positions.
    """
    messages: list[dict[str, str]] = []
    _check(model)
    if sys.stdin.isatty():
        console.note(f"{_NEW} starts again; Ctrl-C ends an answer, Ctrl-D the talk")
    while (line := _read_line()) is not None:
        if line == _NEW:
            messages = []
        elif line:
            messages.append({"role": "user", "content": line})
            result = _answer(model, messages, settings)
            messages.append({"role": "assistant", "content": result.texts[0]})


def _check(model: LoadedModel) -> None:
    """What a model lacks is told before anything is typed."""
    if model.generation.encoder is not None:
        model.prompt([{"role": "user", "content": "Hello"}])
        return
    raise BadInput(f"{model.artifact.model}: no tokenizer beside this model, so it cannot chat; export it with its own")


def _read_line() -> str | None:
    """The next line without the white space around it; None at the end."""
    if sys.stdin.isatty():
        click.echo("> ", nl=False, err=True)
    line = sys.stdin.readline()
    return line.strip() if line else None


def _answer(model: LoadedModel, messages: list[dict[str, str]], settings: Settings) -> Generated:
    """Print the answer to the last message as it comes."""
    prompt = model.prompt(messages)
    stream = model.generate(prompt, stream=True, add_special_tokens=False, **given(settings))
    try:
        for piece in stream:
            click.echo(shown(piece), nl=False)
    except KeyboardInterrupt:
        pass
    click.echo()
    note_times(stream.result)
    return stream.result
