"""What is kept of responses that may announce a result, or tell what one used, until they are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from llmproxy.http import fields
from llmproxy.http.body_hints import is_event_stream
from llmproxy.http.content_coding import Decoder, can_decode
from llmproxy.metering.sse import HeldByteCounter, event_data
from llmproxy.model import Usage

MAX_STORED_BYTES = 2 * 1024 * 1024  # of a response that announces something, of one that is fetched, of a line
MAX_FIRST_BYTES = 256 * 1024  # of the first event of a stream
NOTHING_USED = Usage(basis="exact", cost_usd=0.0)


class HeldBytes:
    """What one reader holds, in the account of everybody's, until it is closed."""

    def __init__(self, holding: HeldByteCounter | None) -> None:
        self._holding = holding
        self._count = 0

    def change(self, count: int) -> None:
        if self._holding is not None:
            self._holding.hold(count - self._count)
            self._count = count

    def close(self) -> None:
        self.change(0)
        self._holding = None


class StoredBody:
    """A response of JSON or a stream of events, kept as long as it is short: of a stream its beginning and its end."""

    def __init__(
        self,
        lines: Sequence[bytes],
        seen: Callable[[bytes], object] = len,
        holding: HeldByteCounter | None = None,
    ) -> None:
        """
        @param seen: Called with each chunk, decoded, when it has been kept.
        """
        self._stream = is_event_stream(lines)
        self._pieces: list[bytes] = []
        self._size = 0
        self._held = HeldBytes(holding)
        self._seen = seen
        self.feed, self.steps = _decoded(lines, self._keep)

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_STORED_BYTES:
            keep = self._stream and len(self._pieces) > 2
            self._pieces = [self._pieces[0], *self._pieces[len(self._pieces) // 2 :]] if keep else []
            self._size = sum(map(len, self._pieces))
        self._held.change(self._size)
        self._seen(data)

    def close(self) -> None:
        self._held.close()
        self._pieces.clear()

    def first(self) -> bytes:
        """The first text of JSON in it."""
        if not self._stream:
            return b"".join(self._pieces)
        start = b""
        for piece in self._pieces:
            start += piece
            if len(start) > MAX_FIRST_BYTES or b"\n\n" in start or b"\r\n\r\n" in start:
                break
        return next(event_data(start), b"")

    def event_data(self) -> list[bytes]:
        """The texts of JSON in it."""
        whole = b"".join(self._pieces)
        return list(event_data(whole)) if self._stream else [whole]


class ResultLines:
    """Results of a batch: a JSON object on each line, added up as they come."""

    def __init__(
        self,
        lines: Sequence[bytes],
        measured: Callable[[bytes, Mapping[str, Any]], Usage],
        holding: HeldByteCounter | None = None,
    ) -> None:
        """
        @param measured: What a response used, by the path at which one like it is made.
        """
        self._measured = measured
        self._held = HeldBytes(holding)
        self._part = bytearray()
        self._sum: Usage | None = None
        self._broken = False
        self._came: list[bytes] = []
        self._feed, self._decode = _decoded(lines, self._came.append)

    def feed(self, data: bytes) -> None:
        for _ in self.steps(data):
            pass

    def steps(self, data: bytes) -> Iterator[None]:
        """A line at a time, each of which may be long."""
        for _ in self._decode(data) if self._decode is not None else [self._feed(data)]:
            came = b"".join(self._came)
            self._came.clear()
            yield from self._split(came)

    def _split(self, data: bytes) -> Iterator[None]:
        part = self._part
        if self._broken:
            return
        part += data
        end = part.rfind(b"\n")
        if end >= 0:
            whole = bytes(part[:end])
            del part[: end + 1]
            for line in whole.split(b"\n"):
                self._line(line)
                yield
        if len(part) > MAX_STORED_BYTES or bytes(part[:1]) not in (b"{", b""):
            self._broken = True
            part.clear()
        self._held.change(len(part))

    def close(self) -> None:
        self._held.close()
        self._part.clear()

    def _line(self, line: bytes) -> None:
        if not line.strip() or self._broken:
            return
        said = parsed(line)
        if not isinstance(said, dict) or "custom_id" not in said:
            self._broken = True
            return
        used = [NOTHING_USED] if self._sum is None else [self._sum]
        message, body = member_at(said, "result", "message"), member_at(said, "response", "body")
        if isinstance(message, dict):
            used.append(self._measured(b"/v1/messages", message))
        elif isinstance(body, dict) and isinstance(body.get("usage"), dict):
            chat = "prompt_tokens" in body["usage"]
            used.append(self._measured(b"/v1/chat/completions" if chat else b"/v1/responses", body))
        self._sum = sum_usages(used)

    def usage(self) -> Usage | None:
        """What all of them used; C{None} for what is no batch's results."""
        self._line(bytes(self._part))
        self._part.clear()
        return None if self._broken else self._sum


def sum_usages(parts: Sequence[Usage]) -> Usage:
    """What several responses used together. Its cost is known if all of them are."""
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    models = {part.model for part in parts if part.model}
    return Usage(
        sum(part.input_tokens for part in parts),
        sum(part.cached_tokens for part in parts),
        sum(part.cache_write_tokens for part in parts),
        sum(part.output_tokens for part in parts),
        sum(part.reasoning_tokens for part in parts),
        sum(costs) if len(costs) == len(parts) else None,
        "exact",
        models.pop() if len(models) == 1 else "",
    )


def member_at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def parsed(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError:
        return None


Steps = Callable[[bytes], Iterator[None]]


def _decoded(lines: Sequence[bytes], take: Callable[[bytes], object]) -> tuple[Callable[[bytes], object], Steps | None]:
    """What takes the bytes as they are on the wire, and where they are encoded, what does so a little at a time."""
    encoding = b",".join(fields.values(lines, b"content-encoding")).strip().lower()
    if encoding in (b"", b"identity"):
        return take, None
    if not can_decode(encoding):
        return _ignore, None
    decoder = Decoder(encoding, take)
    return decoder.feed, decoder.decode_in_steps


def _ignore(data: bytes) -> None:
    """What cannot be read tells nothing."""
