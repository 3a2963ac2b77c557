"""What the simulated models say: English-looking words, the same ones for the same request, and how many they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SENTENCE = """
    the river carries small stones past quiet houses while morning light falls on open fields and someone counts slowly
    from one to ten before a train leaves its platform with every seat taken but two so that late travellers stand near
    wide windows and watch distant hills turn from grey to green
"""
WORDS = _SENTENCE.split()
_TEXT_KEYS = ("content", "text", "parts")


def count(value: Any) -> int:
    """How many tokens there are in a prompt: the words, split at white space, of every text in it.

    @param value: A string, or lists and objects in one another with texts under C{content}, C{text} or C{parts}.
    """
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            total += len(item.split())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item[key] for key in _TEXT_KEYS if key in item)
    return total


class Text:
    """A response's text, cut into pieces that are made only when asked for.

    @ivar pieces: How many pieces: one word each, unless a size is given.
    @ivar size: How many bytes in all (it is ASCII).
    """

    def __init__(self, digest: str, pieces: int, size: int | None = None) -> None:
        start = int(digest[:8], 16) % len(WORDS)
        self._words = WORDS[start:] + WORDS[:start]
        self._period = " ".join(self._words) + " "
        self.pieces = pieces
        self._ends = self._word_ends()
        self.size = self._end(pieces) if size is None else size
        self._even = size is not None

    def __str__(self) -> str:
        return self._slice(0, self.size)

    def __iter__(self) -> Iterator[str]:
        cuts = (self.size * n // self.pieces if self._even else self._end(n) for n in range(self.pieces + 1))
        last = next(cuts)
        for cut in cuts:
            yield self._slice(last, cut)
            last = cut

    @property
    def tokens(self) -> int:
        """How many words it has."""
        full, rest = divmod(self.size, len(self._period))
        return full * len(self._words) + len(self._period[:rest].split())

    def _word_ends(self) -> list[int]:
        ends, at = [], -1
        for word in self._words:
            at += len(word) + 1
            ends.append(at)
        return ends

    def _end(self, words: int) -> int:
        full, rest = divmod(words, len(self._words))
        if not rest:
            return max(full * len(self._period) - 1, 0)
        return full * len(self._period) + self._ends[rest - 1]

    def _slice(self, start: int, end: int) -> str:
        period = len(self._period)
        first = start - start % period
        return (self._period * (-(-(end - first) // period)))[start - first : end - first]
