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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from llmproxy.metering.deferred_bodies import (
    NOTHING_USED,
    ResultLines,
    StoredBody,
    member_at,
    parsed,
    sum_usages,
)
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Dialect, Meter
from llmproxy.metering.sse import HeldByteCounter
from llmproxy.model import Usage

BATCH_FACTOR = 0.5  # of the usual price: OpenAI's, Anthropic's, Google's and Mistral's price pages alike
MAX_ID_CHARS = 250
MAX_EARLY_PARSES = 8  # at a response that has not ended, whether it announces something

_RESPONSE = re.compile(rb"/responses/([^/]+)(/cancel)?/?$")
_RESULTS = re.compile(rb"/messages/batches/([^/]+)/results/?$")
_BATCH = re.compile(rb"/(batches|batch/jobs)/([^/:]+)(/cancel)?/?$")
_FILE = re.compile(rb"/files/([^/]+)/content/?$")
_DEFERS = re.compile(rb'"background"\s*:\s*true|"object"\s*:\s*"batch"|"message_batch"|"batches/')
_IN_BACKGROUND = re.compile(rb'"background"\s*:\s*true')
_UNFINISHED = ("queued", "in_progress")
_ENDED = ("completed", "failed", "expired", "cancelled", "success", "timeout_exceeded")
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
        holding: HeldByteCounter | None = None,
    ) -> None:
        """
        @param lines: The field lines of the response.
        @param deferred: As the operation has it whose answer it is.
        @param on_result: Called with the result's id with the bytes that announce it, before anybody else has them; not
            where they are many.
        @param holding: Called with what is kept of it, until L{close}.
        """
        self._kept = StoredBody(lines, self._look, holding)
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
        self._id = self._id or self._found()
        return self._id

    def close(self) -> None:
        """All that it says is known: let go of what is kept of it."""
        self._kept.close()

    def _found(self) -> str:
        data = self._kept.first()
        if _DEFERS.search(data) is None:
            return ""
        said = parsed(data)
        return _named(self._deferred(said)) if isinstance(said, dict) else ""


def may_be_in_background(response: bytes) -> bool:
    """Whether the bytes of a response, or of its events, say that it is made in the background, though nobody may have
    asked for that."""
    return _IN_BACKGROUND.search(response) is not None


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
        self,
        path: bytes,
        lines: Sequence[bytes],
        dialect: Callable[[bytes], Dialect | None],
        now: float,
        holding: HeldByteCounter | None = None,
    ) -> None:
        """
        @param path: Of the request that fetches it.
        @param dialect: How responses to a POST to a path are measured.
        @param now: Seconds since the epoch.
        @param holding: Called with what is kept of it, until L{close}.
        """
        self._dialect = dialect
        self._now = now
        self._tap: StoredBody | ResultLines
        if _RESULTS.search(path) or _FILE.search(path):
            self._tap = ResultLines(lines, self._one_of_many, holding)
        else:
            self._tap = StoredBody(lines, holding=holding)
        self.feed, self.steps = self._tap.feed, self._tap.steps
        self.close = self._tap.close

    def outcome(self, model: str, at: float, *, complete: bool) -> ResultOutcome | None:
        """What the result used; C{None} where it is not final, or this does not tell.

        @param model: The one that was asked for, where the response names none.
        @param at: When it was asked for, in seconds since the epoch.
        @param complete: Whether the response came to its end.
        """
        if isinstance(self._tap, ResultLines):
            usage = self._tap.usage() if complete else None
            return None if usage is None else ResultOutcome(usage)
        found: ResultOutcome | None = None
        for data in self._tap.event_data():
            said = parsed(data)
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
            ended = said.get("processing_status") == "ended" and member_at(said, "request_counts", "succeeded") == 0
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
        inlined = member_at(said, "response", "inlinedResponses", "inlinedResponses")
        if not isinstance(inlined, list):
            return ResultOutcome()
        named = member_at(said, "metadata", "model")
        if isinstance(named, str):
            model = named.removeprefix("models/")
        answers = [answer for each in inlined if isinstance(answer := member_at(each, "response"), dict)]
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
        return usual._replace(cost_usd=None if cost is None else cost * BATCH_FACTOR)

    def _measured(self, path: bytes, said: Mapping[str, Any], model: str, at: float) -> Usage:
        dialect = self._dialect(path)
        if dialect is None:
            return Usage()
        meter = Meter(dialect, _JSON)
        meter.feed(to_json(said))
        return meter.measured(asked=model, given=_no_prompt, complete=True, at=at)


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


def _named(value: Any) -> str:
    plain = isinstance(value, str) and len(value) <= MAX_ID_CHARS and value.isascii() and value.isprintable()
    return value if plain else ""
