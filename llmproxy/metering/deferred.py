"""Results that are reported later: which response announces one, which request fetches it, and what it then used.

| announced by | fetched with | final by | told by |
|---|---|---|---|
| POST C{/responses}, C{background} | GET C{/responses/ID}, POST C{…/cancel} | C{status} | the response's C{usage} |
| POST C{/batches} (OpenAI) | GET C{/batches/ID}, its output file | C{status} | the batch's C{usage}, or the lines |
| POST C{/messages/batches} (Anthropic) | GET C{/messages/batches/ID/results} | being there | the lines' C{usage} |
| POST C{models/M:batchGenerateContent} (Gemini) | GET C{/batches/ID} | C{done} | the answers' C{usageMetadata} |
| POST C{/batch/jobs} (Mistral) | its output file | being there | the lines' C{usage} |

Which response announces what follows from its operation (C{dialects}). What is one of a batch has the price of batches,
half of the usual one with all of them. Sources, as of November 2026: OpenAI "Background mode", "Batch API" and the API
reference's batch object (C{usage} is there for batches made after September 7, 2025); Anthropic "Batch processing" and
"Retrieve Message Batch results"; Gemini "Batch API"; Mistral "Batch inference".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from llmproxy.http import fields
from llmproxy.http.body_hints import is_event_stream
from llmproxy.http.content_coding import Decoder, can_decode
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Dialect, Meter
from llmproxy.metering.sse import event_data
from llmproxy.model import Usage

BATCH_FACTOR = 0.5  # of the usual price: OpenAI's, Anthropic's, Google's and Mistral's price pages alike
MAX_STORED_BYTES = (
    2 * 1024 * 1024
)  # of a response that announces something, of one that is fetched, of a line of results
MAX_ID_CHARS = 250
MAX_FIRST_BYTES = 256 * 1024  # of the first event of a stream
MAX_EARLY_PARSES = 8  # at a response that has not ended, whether it announces something

_RESPONSE = re.compile(rb"/responses/([^/]+)(/cancel)?/?$")
_RESULTS = re.compile(rb"/messages/batches/([^/]+)/results/?$")
_BATCH = re.compile(rb"/(batches|batch/jobs)/([^/:]+)(/cancel)?/?$")
_FILE = re.compile(rb"/files/([^/]+)/content/?$")
_DEFERS = re.compile(rb'"background"\s*:\s*true|"object"\s*:\s*"batch"|"message_batch"|"batches/')
_UNFINISHED = ("queued", "in_progress")
_ENDED = ("completed", "failed", "expired", "cancelled", "success", "timeout_exceeded")
NOTHING_USED = Usage(basis="exact", cost_usd=0.0)
_JSON = [b"Content-Type: application/json"]


class ResultOutcome(NamedTuple):
    """What has become of a result.

    @ivar usage: What it used; C{None} where another object reports it, or where nobody can tell.
    @ivar elsewhere: The id of the file that tells what it used; C{""} for none.
    """

    usage: Usage | None = None
    elsewhere: str = ""


class Announcement:
    """Reads a response that may announce a result; it is fed with the body as it is on the wire."""

    def __init__(
        self,
        lines: Sequence[bytes],
        deferred: Callable[[Mapping[str, Any]], str],
        on_result: Callable[[str], object] = len,
    ) -> None:
        """
        @param lines: The field lines of the response.
        @param deferred: As the operation has it whose answer it is.
        @param on_result: Called with the result's id with the bytes that announce it, before anybody else has them; not
            where they are many.
        """
        self._kept = _StoredBody(lines, self._look)
        self._deferred = deferred
        self._on_result = on_result
        self._looks = 0
        self._id = ""
        self.feed, self.steps = self._kept.feed, self._kept.steps

    def _look(self, data: bytes) -> None:
        """Look early, but not often: responses that announce something are short."""
        if self._id or self._looks >= MAX_EARLY_PARSES or not data.rstrip().endswith(b"}"):
            return
        self._looks += 1
        self._id = self._found()
        if self._id:
            self._on_result(self._id)

    def result_id(self) -> str:
        """What the provider calls the result that it announces; C{""} where the response itself is all."""
        return self._id or self._found()

    def _found(self) -> str:
        data = self._kept.first()
        if _DEFERS.search(data) is None:
            return ""
        said = _parsed(data)
        return _named(self._deferred(said)) if isinstance(said, dict) else ""


def fetched_id(method: bytes, path: bytes) -> str:
    """The id of the result that a request fetches or ends; C{""} where it does neither."""
    for pattern, place in ((_RESULTS, 1), (_RESPONSE, 1), (_BATCH, 2), (_FILE, 1)):
        found = pattern.search(path)
        if found is not None:
            ends = pattern in (_RESPONSE, _BATCH) and found[place + 1]
            return _named(found[place].decode("ascii", "replace")) if method == (b"POST" if ends else b"GET") else ""
    return ""


class Collection:
    """Reads a response that may tell what a result used; it is fed with the body as it is on the wire."""

    def __init__(
        self, path: bytes, lines: Sequence[bytes], dialect: Callable[[bytes], Dialect | None], now: float
    ) -> None:
        """
        @param path: Of the request that fetches it.
        @param dialect: How responses to a POST to a path are measured.
        @param now: Seconds since the epoch.
        """
        self._dialect = dialect
        self._now = now
        self._tap: _StoredBody | _ResultLines
        if _RESULTS.search(path) or _FILE.search(path):
            self._tap = _ResultLines(lines, self._one_of_many)
        else:
            self._tap = _StoredBody(lines)
        self.feed, self.steps = self._tap.feed, self._tap.steps

    def outcome(self, model: str, at: float, *, complete: bool) -> ResultOutcome | None:
        """What the result used; C{None} where it is not final, or this does not tell.

        @param model: The one that was asked for, where the response names none.
        @param at: When it was asked for, in seconds since the epoch.
        @param complete: Whether the response came to its end.
        """
        if isinstance(self._tap, _ResultLines):
            usage = self._tap.usage() if complete else None
            return None if usage is None else ResultOutcome(usage)
        found: ResultOutcome | None = None
        for data in self._tap.event_data():
            said = _parsed(data)
            if isinstance(said, dict):
                found = self._told(said, model, at) or found
        return found

    def _told(self, said: Mapping[str, Any], model: str, at: float) -> ResultOutcome | None:
        inner = said.get("response")
        if isinstance(inner, dict) and isinstance(said.get("type"), str):  # an event of a stream
            said = inner
        if said.get("object") == "response":
            return self._response(said, model, at)
        if said.get("object") == "batch":
            return self._batch(said, model, at)
        if said.get("type") == "message_batch":
            ended = said.get("processing_status") == "ended" and _at(said, "request_counts", "succeeded") == 0
            return ResultOutcome(NOTHING_USED) if ended else None
        if isinstance(said.get("name"), str) and said.get("done") is True:
            return self._gemini(said, model, at)
        return None

    def _response(self, said: Mapping[str, Any], model: str, at: float) -> ResultOutcome | None:
        status = said.get("status")
        if status in _UNFINISHED or not isinstance(status, str):
            return None
        if isinstance(said.get("usage"), dict):
            return ResultOutcome(self._measured(b"/v1/responses", said, model, at))
        return ResultOutcome(NOTHING_USED) if status == "failed" else ResultOutcome()

    def _batch(self, said: Mapping[str, Any], model: str, at: float) -> ResultOutcome | None:
        """OpenAI's and Mistral's; the latter's C{status} is in capitals, and its jobs have no usage."""
        if str(said.get("status")).lower() not in _ENDED:
            return None
        usage, counts = said.get("usage"), said.get("request_counts")
        if isinstance(usage, dict) and (usage.get("total_tokens") or usage.get("output_tokens")):
            return ResultOutcome(self._of_many(b"/v1/responses", said, model, at))
        file = said.get("output_file_id") or said.get("output_file")
        if isinstance(file, str) and file:
            return ResultOutcome(None, file)
        succeeded = counts.get("completed") if isinstance(counts, dict) else said.get("succeeded_requests")
        return ResultOutcome(NOTHING_USED) if succeeded == 0 else ResultOutcome()

    def _gemini(self, said: Mapping[str, Any], model: str, at: float) -> ResultOutcome | None:
        if "error" in said:
            return ResultOutcome(NOTHING_USED)
        inlined = _at(said, "response", "inlinedResponses", "inlinedResponses")
        if not isinstance(inlined, list):
            return ResultOutcome()
        named = _at(said, "metadata", "model")
        if isinstance(named, str):
            model = named.removeprefix("models/")
        answers = [answer for each in inlined if isinstance(answer := _at(each, "response"), dict)]
        path = b"/v1beta/models/x:generateContent"
        return ResultOutcome(sum_usages([self._of_many(path, answer, model, at) for answer in answers]))

    def _one_of_many(self, path: bytes, answer: Mapping[str, Any]) -> Usage:
        return self._of_many(path, answer, "", self._now)

    def _of_many(self, path: bytes, said: Mapping[str, Any], model: str, at: float) -> Usage:
        """What one of a batch used: by its model's price for batches; where the list has none, by half the price."""
        usage = self._measured(path, {**said, "service_tier": "batch"}, model, at)
        if usage.cost_usd is not None:
            return usage
        usual = self._measured(path, _without_tier(said), model, at)
        cost = usual.cost_usd
        return replace(usual, cost_usd=None if cost is None else cost * BATCH_FACTOR)

    def _measured(self, path: bytes, said: Mapping[str, Any], model: str, at: float) -> Usage:
        dialect = self._dialect(path)
        if dialect is None:
            return Usage()
        meter = Meter(dialect, _JSON)
        meter.feed(to_json(said))
        return meter.measured(asked=model, given=_no_prompt, complete=True, at=at)


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


def _no_prompt() -> PromptEstimate:
    """Nothing is estimated here."""
    return PromptEstimate(0, 0)


def _without_tier(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """As if it had not been one of a batch."""
    bare = {name: value for name, value in answer.items() if name != "service_tier"}
    for place in ("usage", "usageMetadata"):
        if isinstance(usage := bare.get(place), dict):
            bare[place] = {name: value for name, value in usage.items() if name not in ("service_tier", "serviceTier")}
    return bare


class _StoredBody:
    """A response of JSON or a stream of events, kept as long as it is short: of a stream its beginning and its end."""

    def __init__(self, lines: Sequence[bytes], seen: Callable[[bytes], object] = len) -> None:
        """
        @param seen: Called with each chunk, decoded, when it has been kept.
        """
        self._stream = is_event_stream(lines)
        self._pieces: list[bytes] = []
        self._size = 0
        self._seen = seen
        self.feed, self.steps = _decoded(lines, self._keep)

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_STORED_BYTES:
            keep = self._stream and len(self._pieces) > 2
            self._pieces = [self._pieces[0], *self._pieces[len(self._pieces) // 2 :]] if keep else []
            self._size = sum(map(len, self._pieces))
        self._seen(data)

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


class _ResultLines:
    """Results of a batch: a JSON object on each line, added up as they come."""

    def __init__(self, lines: Sequence[bytes], measured: Callable[[bytes, Mapping[str, Any]], Usage]) -> None:
        """
        @param measured: What a response used, by the path at which one like it is made.
        """
        self._measured = measured
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

    def _line(self, line: bytes) -> None:
        if not line.strip() or self._broken:
            return
        said = _parsed(line)
        if not isinstance(said, dict) or "custom_id" not in said:
            self._broken = True
            return
        used = [NOTHING_USED] if self._sum is None else [self._sum]
        message, body = _at(said, "result", "message"), _at(said, "response", "body")
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


def _named(value: Any) -> str:
    plain = isinstance(value, str) and len(value) <= MAX_ID_CHARS and value.isascii() and value.isprintable()
    return value if plain else ""


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _parsed(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError:
        return None
