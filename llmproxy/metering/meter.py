"""The meter of one answer: fed with its bytes as they pass, it tells what was used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json

from llmproxy.http import fields
from llmproxy.metering import estimating
from llmproxy.metering.decoding import Decoder
from llmproxy.metering.error_events import body_error
from llmproxy.metering.events import SAMPLE, Events
from llmproxy.metering.extraction import NOTHING, Told, Units, count, merged, told
from llmproxy.metering.prices import Prices
from llmproxy.metering.scanning import Scan
from llmproxy.model import Usage

WHOLE = 2 << 20  # bytes of a JSON body that are kept and read at once; a longer one is scanned as it passes

PIECES = 2048  # of such a body

WANTED = frozenset(
    b"usage usageMetadata usage_info model modelVersion service_tier amazon-bedrock-invocationMetrics error".split()
)
_MADE = re.compile(
    rb"/(?:chat/completions|completions|responses|messages|converse|converse-stream|invoke|invoke-with-response-stream)$"
    rb"|:(?:generateContent|streamGenerateContent|rawPredict|streamRawPredict)$"
)
_EMBEDDED = re.compile(rb"/embeddings$|:(?:embedContent|batchEmbedContents)$")
_MODEL = re.compile(rb'"model(?:Version)?"\s*:\s*"([^"\\]{1,128})"')
_FIELDS = frozenset(
    {"input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "output_reasoning_tokens"}
)
_NONE: Mapping[str, int] = {}
UNUSED = Usage()
_DECODED = (b"gzip", b"x-gzip", b"deflate")


class Dialect(NamedTuple):
    """How the answers of one endpoint are measured.

    @ivar api: The API's name in the settings; C{provider} the provider's in genai-prices, or C{""}.
    @ivar prices: What is counted costs so much.
    @ivar mark: What stands in every event that tells of usage.
    @ivar takes: Whether a request there is text that counts as input; C{makes}: whether text is made there. What is
        neither is never estimated.
    """

    api: str
    provider: str
    prices: Prices
    mark: bytes
    takes: bool
    makes: bool


def dialect(api: str, provider: str, prices: Prices, path: bytes) -> Dialect:
    """The dialect of what an API has at C{path}."""
    makes = _MADE.search(path) is not None
    gemini = provider == "google" or path.endswith(b"enerateContent")
    mark = b"usageMetadata" if gemini and b"/interactions" not in path else b'_tokens"'
    return Dialect(api, provider, prices, mark, makes or _EMBEDDED.search(path) is not None, makes)


class _Tap(Protocol):
    """What reads a body: takes its bytes, tells what they say of usage, and how much text there is in them."""

    def feed(self, data: bytes) -> object: ...
    def told(self) -> Told: ...
    def text(self) -> float: ...
    def error(self) -> str:
        """The code of the error that it is or ends in, once it was C{told}; C{""} where there is none."""


class Meter:
    """Measures one answer.

    @ivar feed: Takes the next bytes of the body, as they are on the wire; never raises.
    @ivar error: Once it is measured, the provider's code for the error that the answer is or ended in; else C{""}.
    """

    __slots__ = ("_decoder", "_dialect", "_size", "_tap", "_told", "error", "feed")

    def __init__(self, dialect: Dialect, lines: Sequence[bytes] = ()) -> None:
        """
        @param lines: The field lines of the answer.
        """
        self._dialect = dialect
        self._decoder: Decoder | None = None
        self._size = 0
        self.error = ""
        self._told = _invocation(lines) if dialect.provider == "aws" else None
        kind, encoding = _described(lines)
        self._tap: _Tap | None = None
        if kind == b"text/event-stream":
            self._tap = _Stream(dialect.mark)
        elif kind.endswith(b"json"):
            self._tap = _Body()
        self.feed = self._count if self._tap is None else self._tap.feed
        if self._tap is not None and encoding not in (b"", b"identity"):
            if encoding in _DECODED:
                self._decoder = Decoder(encoding, self._tap.feed)
                self.feed = self._decoder.feed
            else:
                self._tap, self.feed = None, self._count

    def _count(self, data: bytes) -> None:
        self._size += len(data)

    def measured(self, *, asked: str, given: int, complete: bool, at: float) -> Usage:
        """What was used; never raises. To be called once.

        @param asked: The model that the client asked for.
        @param given: Bytes of the request's body.
        @param complete: Whether the answer came to its end.
        @param at: Seconds since the epoch.
        """
        tap = None if self._decoder is not None and self._decoder.failed else self._tap
        said = NOTHING if tap is None else tap.told()
        self.error = "" if tap is None else tap.error()
        complete = complete and not self.error
        units = None if said.usage is None else count(said.usage, self._dialect.provider)
        if units is None and self._told is not None:
            units, said = self._told, said._replace(final=True)
        basis, details = "exact", _NONE
        if units is None or not (complete if said.final is None else said.final):
            units, details = self._estimated(tap, units or {}, given)
            basis = "estimated" if units else "none"
        cost = None
        if units:
            home = self._dialect
            cost = home.prices.cost(home.api, home.provider, said.model, asked, units, at, said.tier, said.speed)
        return _usage(units, cost, basis, said.model, details)

    def _estimated(self, tap: _Tap | None, known: Units, given: int) -> tuple[Units, dict[str, int]]:
        """The most likely counts, and in C{details} what they can be at most."""
        units, bounds = dict(known), {}
        if self._dialect.takes and "input_tokens" not in known:
            units["input_tokens"], bounds["input_bound"] = estimating.tokens(given), given
        if self._dialect.makes:
            text = float(self._size) if tap is None else tap.text()
            units["output_tokens"] = max(known.get("output_tokens", 0), estimating.tokens(text))
            bounds["output_bound"] = int(max(units["output_tokens"], text))
        return units, bounds


def unanswered(dialect: Dialect, *, asked: str, given: int, at: float) -> Usage:
    """What was probably used of a request that got no answer, although its provider may have begun with it.

    The parameters are as in L{Meter.measured}.
    """
    if not dialect.takes or not given:
        return UNUSED
    units: Units = {"input_tokens": estimating.tokens(given)}
    cost = dialect.prices.cost(dialect.api, dialect.provider, "", asked, units, at)
    return _usage(units, cost, "estimated", "", {"input_bound": given})


def _usage(units: Units, cost: float | None, basis: str, model: str, details: Mapping[str, int]) -> Usage:
    """Counts by unit as the frozen value that travels on."""
    more = _NONE
    if not units.keys() <= _FIELDS:
        more = {unit: int(size) for unit, size in units.items() if unit not in _FIELDS and size}
    get = units.get
    return Usage(
        int(get("input_tokens", 0)),
        int(get("cache_read_tokens", 0)),
        int(get("cache_write_tokens", 0)),
        int(get("output_tokens", 0)),
        int(get("output_reasoning_tokens", 0)),
        cost,
        basis,
        model,
        {**more, **details} if more or details else _NONE,
    )


class _Body:
    """A JSON body: kept while it is short, scanned beyond."""

    __slots__ = ("_error", "_kept", "_scan", "_size")

    def __init__(self) -> None:
        self._error = ""
        self._kept: list[bytes] = []
        self._scan: Scan | None = None
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._scan is not None:
            self._scan.feed(data)
        else:
            self._kept.append(data)
            if self._size > WHOLE or len(self._kept) > PIECES:
                self._scan_on()

    def told(self) -> Told:
        if self._scan is None:
            whole = b"".join(self._kept)
            said, self._kept = _parsed(whole), [whole]
            if isinstance(said, dict):
                self._kept = []  # the exchange may be remembered for longer
                self._error = body_error(said)
                return told(said, True)
            self._scan_on()
        return self._scanned()

    def text(self) -> float:
        return float(self._size)

    def error(self) -> str:
        return self._error

    def _scan_on(self) -> None:
        self._scan = Scan(WANTED)
        for piece in self._kept:
            self._scan.feed(piece)
        self._kept = []

    def _scanned(self) -> Told:
        """What stands at the top; where that is a list, its answers were made one after the other."""
        assert self._scan is not None
        found = {name.decode(): _parsed(raw) for name, raw in self._scan.values.items()}
        self._error = body_error(found)
        return told(found, not self._scan.is_list)


class _Stream(Events):
    """A stream of events."""

    __slots__ = ()

    def told(self) -> Told:
        self.end()
        found = NOTHING
        for data in self.marked():
            said = _parsed(data)
            found = merged(found, told(_fragment(data) if said is None else said))
        if not found.model and (model := _MODEL.search(self.sample)):
            found = found._replace(model=model[1].decode("utf-8", "replace"))
        return found

    def text(self) -> float:
        samples = [self.sample] if self.size <= len(self.sample) else [self.sample, self.last[-SAMPLE:]]
        return self.size * estimating.share(samples)


def _described(lines: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The media type of an answer, and how it is encoded; both in lower case."""
    kind = fields.value(lines, b"content-type") or b""
    encoding = b",".join(fields.values(lines, b"content-encoding"))
    return kind.partition(b";")[0].strip().lower(), encoding.lower()


def _invocation(lines: Sequence[bytes]) -> Units | None:
    """What Bedrock tells in the head of an answer."""
    given, made = (fields.value(lines, b"x-amzn-bedrock-" + name + b"-token-count") for name in (b"input", b"output"))
    if given is None or made is None or not (given.isdigit() and made.isdigit()) or len(given + made) > 30:
        return None
    return {"input_tokens": int(given), "output_tokens": int(made)}


def _parsed(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError:
        return None


def _fragment(data: bytes) -> Any:
    """The usage object in what is left of an event that was too long to be kept."""
    at = data.rfind(b'"usage"')
    if at <= 0 or data[at - 1 : at] == b"\\":
        return None
    text = data[at + 7 :].decode("utf-8", "replace").lstrip(" \t\r\n:")
    try:
        return {"usage": json.JSONDecoder().raw_decode(text)[0]}
    except (ValueError, RecursionError):
        return None
