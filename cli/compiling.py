"""The options that say what a model is compiled to, for every command that compiles one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnxsmith.cli import dims

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--target",
        type=click.Choice(["cpu", "cuda", "onnx"]),
        default="cpu",
        show_default=True,
        help="Where it will run; onnx is any runtime. No GPU is needed to compile for cuda.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "bf16", "int8", "int8-weights", "int4"]),
        default="fp32",
        show_default=True,
        help="fp16 and bf16 are for cuda. int8 computes in integers; int8-weights and int4 store weights in blocks.",
    ),
    click.option(
        "--half-io", is_flag=True, help="With fp16, bf16: inputs and outputs in 16 bits too, a cache as well."
    ),
    click.option("--cache", is_flag=True, help="Give a decoder a cache; an encoder-decoder becomes a folder of two."),
    click.option("--all-logits", is_flag=True, help="With --cache: score all tokens."),
    click.option("--last-token", is_flag=True, help="A decoder without a cache: score each row's last token only."),
    click.option("--unpad", is_flag=True, help="Compute no padded positions: outputs are zero there, equal elsewhere."),
    dims.option,
)


def options(command: Command) -> Command:
    """Add them, in the order of the list."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
