"""What was probably used where the provider told nothing: by size, with what it can have been at most.

The rule: four bytes are one token, as in English prose; no token is shorter than a byte. Input is the size of the
request. Output is the size of the answer; of a stream, the text in its events: as much of all of them as of a sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

BYTES_PER_TOKEN = 4
FRAMING = 8  # bytes of an event besides its data

# Members that hold what a model made.
_TEXTS = frozenset(
    {"content", "text", "delta", "arguments", "partial_json", "thinking", "reasoning", "reasoning_content", "refusal"}
)
_AROUND = frozenset({"type", "role", "id", "name", "obfuscation", "signature", "encrypted_content"})


def tokens(size: float) -> int:
    """How many tokens so many bytes of text probably are."""
    return -(-int(size) // BYTES_PER_TOKEN)


def text_size(told: Any) -> int:
    """Bytes of text that a model made, in an answer or an event as parsed JSON."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(told))


def share(datas: Iterable[bytes]) -> float:
    """How much of a stream is text, going by these events of it; all, where none of them can be read."""
    text = size = 0
    for data in datas:
        try:
            text += text_size(json.loads(data))
        except (ValueError, RecursionError):
            continue
        size += len(data) + FRAMING
    return text / size if size else 1.0


def _texts(told: Any) -> Iterator[str]:
    waiting = [(told, False)]
    while waiting:
        value, within = waiting.pop()
        if isinstance(value, dict):
            waiting += [(item, within or name in _TEXTS) for name, item in value.items() if name not in _AROUND]
        elif isinstance(value, list):
            waiting += [(item, within) for item in value]
        elif within and isinstance(value, str):
            yield value
