"""Keeps a provider's key from coming back: hides it in a response, wherever it stands and however the bytes are cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from llmproxy.http import fields
from llmproxy.http.content_coding import Decoder, can_decode, encode
from llmproxy.http.field_lines import FieldLines

MAX_HELD_BYTES = 256 * 1024  # of a coded error, and of what has been seen of the key in a coded stream
MAX_DECODED_BYTES = 1024 * 1024
MAX_SHAPE_BYTES = 8 * 1024  # before a key within an error, in which it says that it is one
MIN_KEY_BYTES = 12  # a shorter key is none that anybody must not read, and may stand in a response by chance
_BODILESS = (204, 304)
# As OpenAI, Anthropic, Google, Azure and their like have it; "error": null is none. The text of a model is escaped.
_ERROR = re.compile(rb'"errors?"\s*:\s*["{\[]|"type"\s*:\s*"error"')
_TEXT = re.compile(rb"json|event-?stream|^text/", re.IGNORECASE)


class KeyFound(Exception):
    """The response is about to give the key away, where it can no longer be hidden: it must be cut."""


class KeyFilter(Protocol):
    """As L{llmproxy.wire.relay.BodyFilter}."""

    keeps_length: bool

    def feed(self, data: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class Mask:
    """Replaces every occurrence of C{secret} by as many asterisks, so that no length changes.

    Bytes at the end of a chunk that may be the beginning of the secret are held until the next chunk, or L{end}.
    """

    keeps_length = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._bytes = frozenset(secret)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Give the next chunk; get what may be shown so far."""
        if self._held:
            data = self._held + data
        if self._secret in data:
            data = replace_key(data, self._secret)
        held = partial_match(data, self._secret) if data and data[-1] in self._bytes else 0
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def end(self) -> bytes:
        """Get what was held back: the secret's beginning alone tells little, and the response must stay whole."""
        held, self._held = self._held, b""
        return held


class CodedMask:
    """Hides C{secret} within a content coding. All of the body is held: what it says is known when it is whole.

    It passes to the byte where it says no secret, and coded again where it does. What cannot be decoded or is too long
    to be held is replaced by C{notice}.
    """

    keeps_length = False

    def __init__(self, secret: bytes, encoding: bytes, notice: Callable[[], bytes]) -> None:
        self._secret = secret
        self._encoding = encoding
        self._notice = notice
        self._held = bytearray()
        self._decoded = bytearray()
        self._decoder = Decoder(encoding, self._decoded.extend)
        self._lost = False

    def feed(self, data: bytes) -> bytes:
        """The next chunk; nothing of it passes yet."""
        if not self._lost:
            self._held += data
            self._lost = len(self._held) > MAX_HELD_BYTES
            for _ in self._decoder.decode_in_steps(data):
                if self._lost or len(self._decoded) > MAX_DECODED_BYTES:
                    self._lost = True
                    break
        return b""

    def end(self) -> bytes:
        """The body, coded as it came."""
        if not self._held:
            return b""
        if self._lost or not self._decoder.complete:
            return encode(self._encoding, self._notice())
        if self._secret not in self._decoded:
            return bytes(self._held)
        return encode(self._encoding, replace_key(bytes(self._decoded), self._secret))


class ErrorMask:
    """Replaces the secret where a response of status 200 repeats it in an error: an event of a stream, or a body.

    Elsewhere it passes: keys of servers of one's own may be words such as C{ollama}, and a model may say them.

    @ivar clean: Whether whole events that come next may be shown as they are, where they do not say C{secret}: they
        need not be given to L{feed} then.
    """

    __slots__ = ("_before", "_held", "clean", "found", "secret")
    keeps_length = True

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._before = b""
        self._held = b""
        self.found = False
        self.clean = True

    @property
    def holds(self) -> bool:
        """Whether the last bytes may be the beginning of the secret."""
        return self._held != b""

    @property
    def sees_error(self) -> bool:
        """Whether what came last is part of an error."""
        return _ERROR.search(self._before) is not None

    def feed(self, data: bytes) -> bytes:
        """Give the next chunk; get what may be shown so far."""
        if self._held:
            data = self._held + data
        if self.secret in data:
            data = self._masked(data)
        held = partial_match(data, self.secret) if data and data[-1] in self.secret else 0
        self._held = data[len(data) - held :]
        data = data[: len(data) - held]
        if data.endswith(b"\n\n"):
            self._before = b""
        else:
            self._before = _since_blank_line(data if len(data) >= MAX_SHAPE_BYTES else self._before + data)
        self.clean = not (held or self._before)
        return data

    def end(self) -> bytes:
        """Get what was held back."""
        held, self._held = self._held, b""
        return held

    def _masked(self, data: bytes) -> bytes:
        secret, at = self.secret, 0
        while (at := data.find(secret, at)) >= 0:
            if _ERROR.search(_since_blank_line(self._before + data[:at])):
                data = data[:at] + b"*" * len(secret) + data[at + len(secret) :]
                self.found = True
            at += len(secret)
        return data


class CodedWatch:
    """Lets a coded response of status 200 pass to the byte, unless it repeats C{secret} in an error; see L{ErrorMask}.

    Of what is no stream, only the beginning is looked at; of what cannot be decoded, nothing. A chunk after which the
    secret may go on is held until the next one.
    """

    keeps_length = True

    def __init__(self, secret: bytes, encoding: bytes, stream: bool) -> None:
        self._decoder = Decoder(encoding, self._look)
        self._said = ErrorMask(secret)
        self._left = -1 if stream else MAX_SHAPE_BYTES
        self._held = b""
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """The next chunk; what of it may pass. L{KeyFound} where it would say the secret."""
        if not self._over:
            for _ in self._decoder.decode_in_steps(data):
                if self._over or self._said.found:
                    break
            if self._said.found:
                self._held = b""
                raise KeyFound
            self._over = self._over or self._decoder.failed
        data, self._held = self._held + data, b""
        if not self._over and self._said.holds and len(data) <= MAX_HELD_BYTES:
            self._held = data
            return b""
        return data

    def end(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held

    def _look(self, decoded: bytes) -> None:
        self._said.feed(decoded)
        if self._left >= 0:
            self._left = max(self._left - len(decoded), 0)
            self._over = not self._left and not self._said.sees_error


class Replacement:
    """Stands for a body that cannot be looked into."""

    keeps_length = False

    def __init__(self, notice: Callable[[], bytes]) -> None:
        self._notice = notice

    def feed(self, data: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        return self._notice()


class FilterChain:
    """One after the other: the second is none that finds a key, for the end must not raise L{KeyFound}."""

    def __init__(self, first: KeyFilter, second: KeyFilter) -> None:
        self._first = first
        self._second = second
        self.keeps_length = first.keeps_length and second.keeps_length

    def feed(self, data: bytes) -> bytes:
        return self._second.feed(self._first.feed(data))

    def end(self) -> bytes:
        return self._second.feed(self._first.end()) + self._second.end()


class MaskingPlan(NamedTuple):
    """How a response is to pass."""

    lines: list[bytes]
    filter: KeyFilter | None


def mask_plan(
    code: int, lines: list[bytes], secret: bytes, notice: Callable[[], bytes], *, stream: bool, whole: bytes | None
) -> MaskingPlan:
    """How a response's body is to pass so that it does not say C{secret}. Its head is masked already.

    Anything of status 400 or more is masked: in its coding, where that can be read, and replaced where not. Below that,
    only an error is; see L{ErrorMask}. One in a coding is cut, if it is not all there before its head is sent.

    @param notice: Makes the body that stands for one that cannot be looked into, JSON.
    @param whole: The body, where all of it is there.
    """
    if code in _BODILESS:
        return MaskingPlan(lines, None)
    encoding = content_coding(lines)
    if whole is not None and not encoding and secret not in whole:
        return MaskingPlan(lines, None)
    if code >= 400:
        return _refused(lines, secret, encoding, notice)
    if len(secret) < MIN_KEY_BYTES or not _is_text(lines):
        return MaskingPlan(lines, None)
    if not encoding:
        return MaskingPlan(lines, ErrorMask(secret))
    if not can_decode(encoding):
        return MaskingPlan(lines, None)
    if whole is None:
        return MaskingPlan(lines, CodedWatch(secret, encoding, stream))
    try:
        CodedWatch(secret, encoding, stream).feed(whole)
    except KeyFound:
        return MaskingPlan(lines, CodedMask(secret, encoding, notice))
    return MaskingPlan(lines, None)


def events_mask(secret: bytes) -> ErrorMask | None:
    """As L{mask_plan}, of a stream of events of status 200 in no coding, which is not all there."""
    return ErrorMask(secret) if len(secret) >= MIN_KEY_BYTES else None


def _refused(lines: list[bytes], secret: bytes, encoding: bytes, notice: Callable[[], bytes]) -> MaskingPlan:
    if not encoding:
        return MaskingPlan(lines, Mask(secret))
    if can_decode(encoding):
        return MaskingPlan(lines, CodedMask(secret, encoding, notice))
    left = [line for line in lines if line.partition(b":")[0].lower() not in (b"content-encoding", b"content-type")]
    return MaskingPlan([*left, b"Content-Type: application/json"], Replacement(notice))


def _is_text(lines: list[bytes]) -> bool:
    """Whether a response may have the shape of an error: JSON, events or text, and no picture or sound."""
    kind = fields.value(lines, b"content-type")
    return kind is None or _TEXT.search(kind) is not None


def _since_blank_line(text: bytes) -> bytes:
    """The end of C{text}, of one event of a stream at most."""
    text = text[-MAX_SHAPE_BYTES:]
    at = max(text.rfind(b"\n\n"), text.rfind(b"\n\r\n"), text.rfind(b"\r\r"))
    return text if at < 0 else text[at:]


def content_coding(lines: list[bytes]) -> bytes:
    """The content coding that the lines tell of, in lower case; C{b""} for none."""
    encoding = b",".join(fields.values(lines, b"content-encoding")).strip().lower()
    return b"" if encoding == b"identity" else encoding


def replace_key(data: bytes, secret: bytes) -> bytes:
    """The same, with as many asterisks for the secret."""
    return data.replace(secret, b"*" * len(secret))


def partial_match(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of C{data} may be the beginning of the secret."""
    for length in range(min(len(secret) - 1, len(data)), 0, -1):
        if data.endswith(secret[:length]):
            return length
    return 0


def mask_lines(lines: FieldLines, secret: bytes) -> FieldLines:
    """The header lines, with the secret starred out where one holds it."""
    if secret not in b"\n".join(lines):
        return lines
    return FieldLines.of([replace_key(line, secret) for line in lines])
