"""The errors that users meet. Each is one line that says what was expected, what was found and what to do.

The command line prints the message and exits with ``exit_code``: 1 a check failed, 2 wrong usage, 3 bad input.
"""

from __future__ import annotations


class OnnxsmithError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of a foreign error that says something, or the error's kind when none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class BadInput(OnnxsmithError):
    """A file or a value that the user gave cannot be used."""

    exit_code = 3


class BadUsage(OnnxsmithError):
    """A command or a function was called in a way that it does not have."""

    exit_code = 2


class CheckFailed(OnnxsmithError):
    """The work was done, and a check of its result did not hold (parity, a budget, a gate)."""

    exit_code = 1
