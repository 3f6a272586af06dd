"""Names from a model file, as a page may show them."""

from __future__ import annotations

LONGEST = 160


def clean(text: object, longest: int = LONGEST) -> str:
    """Printable characters on one line, at most so many: the middle of a longer name is left out."""
    raw = str(text)
    raw = raw if len(raw) <= 4 * longest else raw[: 2 * longest] + raw[-2 * longest :]
    line = "".join(char for char in " ".join(raw.split()) if char.isprintable())
    half = longest // 2
    return line if len(line) <= longest else f"{line[:half]}…{line[-half:]}"
