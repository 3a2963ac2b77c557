"""What the ledger asks of whoever knows secrets."""

from __future__ import annotations

from typing import Protocol

from llmproxy.model import RequestRecord


class Masking(Protocol):
    """Masks what must not be written; a L{Redactor<llmproxy.observability.redaction.Redactor>} is it.

    Both return what they are given where there is nothing to mask, and may mask more once C{version} is another.
    """

    version: int

    @property
    def masks_hex(self) -> bool:
        """Whether anything may ever be masked in a text of lower-case hexadecimal digits and hyphens."""

    def redact(self, text: str) -> str: ...
    def record(self, record: RequestRecord) -> RequestRecord: ...


class NothingMasked:
    """Where there is nothing to mask."""

    version = 0
    masks_hex = False

    def redact(self, text: str) -> str:
        return text

    def record(self, record: RequestRecord) -> RequestRecord:
        return record
