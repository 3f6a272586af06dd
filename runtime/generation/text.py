"""Token ids to text while they arrive: pieces that never end within a character, and never within a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_CONTEXT = 4  # tokens of the prompt by which the first new ones know whether a space comes before them
_BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character yet


class Detokenizer:
    """The text that follows a prompt. ``decode`` must give a longer text for more ids, as tokenizers' does.

    Only the ids since the last whole character are decoded again, beside those of the piece before, so that a token
    does not take longer in a longer text.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(prompt[-_CONTEXT:])
        self._known = len(self._ids)  # ids whose text was given

    def add(self, id: int) -> str:
        """The text that is whole with this token; "" while a character is not complete."""
        self._ids.append(id)
        text = self.rest
        if not text or text.endswith(_BROKEN):
            return ""
        self._ids, self._known = self._ids[self._known :], len(self._ids) - self._known
        return text

    @property
    def rest(self) -> str:
        """What was not given yet, incomplete characters included."""
        return self._decode(self._ids)[len(self._decode(self._ids[: self._known])) :]


class StopTexts:
    """Cuts a stream of text before the first of the ``stops`` that occurs in it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self.held = ""  # the end that could be the start of a stop text
        self.found = False

    def add(self, piece: str) -> str:
        """What may be shown: all but an end that could be the start of a stop text."""
        if self.found:
            return ""
        text = self.held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self.held = True, ""
            return text[: min(places)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self.held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many last characters of the text are the first ones of the stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
