"""The ``onnxsmith`` command: finds the subcommand, runs it, and makes errors one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from onnxsmith.cli import console
from onnxsmith.errors import OnnxsmithError

COMMANDS = (
    "train",
    "export",
    "optimize",
    "tune",
    "explain",
    "run",
    "compare",
    "verify",
    "bisect",
    "reduce",
    "models",
    "demo",
)
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h: the fault is ours, not the input's
INTERRUPTED = 130  # what shells report after Ctrl-C


class LazyGroup(click.Group):
    """Imports a command's file when the command is looked up, and none of them at import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"onnxsmith.cli.{name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxsmith")
def cli() -> None:
    """Any PyTorch or ONNX Transformer in; a fast, verified, explained ONNX model out.

    Exit codes: 0 fine, 1 a check failed, 2 wrong usage, 3 bad input.
    """


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line ``args`` (``sys.argv`` by default) and return its exit code."""
    try:
        status = cli.main(args, prog_name="onnxsmith", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except OnnxsmithError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(_describe(error), OnnxsmithError.exit_code)
    except Exception as error:
        return _internal(error)
    return status if isinstance(status, int) else 0


def _fail(message: str, exit_code: int) -> int:
    console.error(message)
    return exit_code


def _describe(error: OSError) -> str:
    """Files that cannot be read or written are the user's to mend: say which and why."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _internal(error: Exception) -> int:
    """One line for a fault of our own; the traceback only when asked for."""
    if os.environ.get("ONNXSMITH_TRACEBACK"):
        traceback.print_exception(error)
        return INTERNAL_ERROR
    hint = "set ONNXSMITH_TRACEBACK=1 to see the traceback"
    return _fail(f"{type(error).__name__}: {error} ({hint})", INTERNAL_ERROR)
