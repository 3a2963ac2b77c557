"""Whom a request is attributed to: what its header fields claim, unless its token's metadata says so for certain."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy.base.attribution import CLAIMED, MAX_VALUE_CHARACTERS, NO_VALUE, OF_TOKEN, encode
from llmproxy.base.memo import BoundedMemo
from llmproxy.http.field_lines import FieldLines
from llmproxy.model import Grant

MAX_MEMO_TEXTS = 4096
MAX_MEMO_BYTES = 1024  # of all that one request says of it; of more it is worked out anew


class AttributionFields:
    """Reads a request's attribution, as C{attribution} of the settings names it.

    @ivar field_names: The header fields that are read, in lower case.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        """
        @param settings: Header fields by the names of attributions.
        """
        self._fields = tuple((name, header.lower().encode("ascii")) for name, header in settings.items())
        self._texts: BoundedMemo[tuple[object, ...], str] = BoundedMemo(MAX_MEMO_TEXTS)
        self.field_names = frozenset(header for _, header in self._fields)

    def __bool__(self) -> bool:
        return bool(self._fields)

    def of(self, lines: FieldLines, grant: Grant) -> str:
        """The attribution of a request with these lines, as L{llmproxy.base.attribution} writes it."""
        sent = [lines.value(header) for _, header in self._fields]
        key = (grant.metadata, *sent)
        text = self._texts.get(key)
        if text is None:
            text = self._written(sent, dict(grant.metadata))
            if sum([len(value) for value in sent if value is not None]) <= MAX_MEMO_BYTES:
                self._texts[key] = text
        return text

    def _written(self, sent: list[bytes | None], fixed: Mapping[str, str]) -> str:
        return encode(
            (name, (fixed[name][:MAX_VALUE_CHARACTERS], OF_TOKEN) if fixed.get(name) else _claimed(value))
            for (name, _), value in zip(self._fields, sent, strict=True)
        )


def _claimed(value: bytes | None) -> tuple[str, str]:
    """A field's value as text that any log and any table takes, no longer than it may be."""
    if not value:
        return NO_VALUE
    text = value.decode("utf-8", "replace")[:MAX_VALUE_CHARACTERS]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    text = text.strip()
    return (text, CLAIMED) if text else NO_VALUE
