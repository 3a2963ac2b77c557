"""What was probably used where the provider told nothing: by size, with what it can have been at most.

The rule: four bytes are one token, as in English prose; no token is shorter than a byte. Input is the size of the
request. Output is the size of the answer; of a stream, the text in its events: as much of all of them as of a sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BYTES_PER_TOKEN = 4

# Members that hold what a model made, in the words of all providers.
_TEXTS = re.compile(
    rb'"(?:content|text|delta|arguments|partial_json|thinking|reasoning|reasoning_content|refusal)"'
    rb'\s{0,8}:\s{0,8}"([^"\\]*+(?:\\.[^"\\]*+)*)',  # which the sample may end within
    re.DOTALL,
)


def tokens(size: float) -> int:
    """How many tokens so many bytes of text probably are."""
    return -(-int(size) // BYTES_PER_TOKEN)


def share(samples: Sequence[bytes]) -> float:
    """How much of a stream is text, going by these parts of it."""
    size = sum(map(len, samples))
    text = sum(len(found) for sample in samples for found in _TEXTS.findall(sample))
    return text / size if size else 0.0
