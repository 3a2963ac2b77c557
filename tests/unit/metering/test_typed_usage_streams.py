"""The typed reading of streams tells what the general one tells, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.body_readers import EventStreamReader
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Dialect, Meter, dialect
from llmproxy.metering.sse import MAX_READ_EVENTS, tells_text_alone
from llmproxy.model import Usage
from tests.support.examples import examples
from tests.unit.metering.samples import CHAT_USAGE, CLAUDE, DELTA, ENDED, GEMINI, SSE, STARTED, chunk, events
from tests.unit.metering.test_typed_usage import (
    BODIES,
    HOMES,
    MESSAGE_USAGE,
    NOW,
    PATHS,
    PRICES,
    PROVIDERS,
    altered,
    bodies,
)

USAGE_CHUNK = {"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": [], "usage": CHAT_USAGE}
TEXTS = [chunk(), chunk(model="gpt-4o"), {"choices": [{"delta": {"content": 'a "usage": {"x_tokens": 1} of it'}}]}]
OTHERS = [
    *(b"", b"data: [DONE]", b": comment", b"event: ping", b"id: 1\ndata: {}", b"data:{}", b"data", b"retry: 5"),
    b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}',
    b'data: {"error": {"code": "x"}}',
    b'data: {"item": {"type": "web_search_call", "id": "w"}, "type": "response.output_item.done"}',
    b'data: {"model": "gpt-4o-mini", "an error": 1}',
    b'data: {"prompt_tokens": 3, "usage": {"prompt_tokens": 7, "completion_tokens": 1}}',
    *(b'{"total_tokens": 8}', b"data: \xff\xfe"),
]
LONG = 4 * MAX_READ_EVENTS


def both(case: SynchronousTestCase, home: Dialect, pieces: list[bytes], *, complete: bool = True, **how: Any) -> Usage:
    """What is measured one way and the other."""
    found = []
    for each in (home._replace(typed=None), home, home):  # the last with a price that is ready
        tier = how.get("tier", b"")
        lines = [b"Content-Type: " + SSE, *([b"x-gemini-service-tier: " + tier] if tier else [])]
        meter = Meter(each, lines)
        for piece in pieces:
            meter.feed(piece)
        usage = meter.measured(
            asked=how.get("asked", ""), given=lambda: PromptEstimate(40, 80), complete=complete, at=NOW
        )
        found.append((repr(usage), meter.error))
        whole, operation = b"".join(pieces), home.operation
        if (
            complete
            and len(pieces) == 1
            and each.typed is not None
            and tells_text_alone(whole, operation.mark, operation.also)
        ):
            told = each.typed.measured_text(
                whole,
                how.get("asked", ""),
                tier if home.provider == "google" else b"",
                NOW,
                lambda: PromptEstimate(40, 80),
            )
            case.assertIn(told, (None, usage), pieces)
    case.assertEqual(found[1], found[0], pieces)
    case.assertEqual(found[2], found[0], pieces)
    return usage


def read(home: Dialect, *pieces: bytes) -> Usage | None:
    """What the typed reading alone makes of a stream."""
    assert home.typed is not None
    stream = EventStreamReader(home.operation.mark, home.operation.also)
    for piece in pieces:
        stream.feed(piece)
    return home.typed.measured_stream(stream, "", b"", NOW, lambda: PromptEstimate(40, 80))


@st.composite
def streams(draw: Callable[..., Any]) -> tuple[str, list[bytes]]:
    """A stream that is usual but for some of its events, in some reads."""
    kind, body = draw(bodies())
    if draw(st.booleans()):
        return "messages", cut(draw, message_events(draw))
    usual = [b"data: " + json.dumps(each).encode() for each in TEXTS]
    shown = draw(st.sampled_from([b"data: %b", b"data: %b", b"data:%b", b"event: message\ndata: %b", b"%b"])) % body
    told = [shown] * draw(st.sampled_from([0, 1, 1, 1, 2]))
    listed = (
        draw(st.lists(st.sampled_from(usual), max_size=4)) + told + draw(st.lists(st.sampled_from(usual), max_size=2))
    )
    for other in draw(st.lists(st.sampled_from(OTHERS), max_size=2)):
        listed.insert(draw(st.integers(0, len(listed))), other)
    end = draw(st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"]))
    text = b"".join(each.replace(b"\n", end[: len(end) // 2] or b"\n") + end for each in listed)
    if draw(st.booleans()):
        text = text[: len(text) - draw(st.integers(0, 5))]
    return kind, cut(draw, text)


def cut(draw: Callable[..., Any], text: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def message_events(draw: Callable[..., Any]) -> bytes:
    """Anthropic's, usual but for some members of those that report usage."""
    usage = draw(st.sampled_from([MESSAGE_USAGE, STARTED["message"]["usage"]]))
    start = {**STARTED, "message": {**STARTED["message"], "usage": usage}}
    end = {**ENDED, "usage": draw(st.sampled_from([MESSAGE_USAGE, ENDED["usage"], {"output_tokens": 9}]))}
    told = altered(draw, [start, end], draw(st.integers(0, 3)))
    listed = [each if isinstance(each, dict) else {} for each in told]
    listed[1:1] = [DELTA] * draw(st.integers(0, 3))
    if draw(st.integers(0, 9)) == 0:
        listed.append(draw(st.sampled_from(listed)))
    named = all(isinstance(each.get("type"), str) for each in listed) and draw(st.booleans())
    text = b"".join(
        (b"event: message\n" if named else b"")
        + b"data: "
        + json.dumps(each).encode("utf-8", "surrogatepass")
        + b"\n\n"
        for each in listed
    )
    return text


class TypedStreamTests(SynchronousTestCase):
    @examples(1000)
    @given(
        streams(),
        st.sampled_from(PROVIDERS),
        st.sampled_from(["", "gpt-4o", "claude-sonnet-4-5", "nobody-knows"]),
        st.sampled_from([b"", b"", b"flex", b"Priority"]),
        st.booleans(),
    )
    def test_tells_what_the_general_reading_tells(
        self, made: tuple[str, list[bytes]], provider: str, asked: str, tier: bytes, complete: bool
    ) -> None:
        kind, pieces = made
        for name in {provider, HOMES[kind]}:
            home = dialect("api", name, PRICES, PATHS[kind])
            both(self, home, pieces, asked=asked, tier=tier, complete=complete)

    def test_takes_the_usual_streams(self) -> None:
        """With a usage in its last event, in one read or several, and without one."""
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        texts = events(*TEXTS[:2], done=False)
        usage = events(USAGE_CHUNK, done=True)
        for pieces, basis in [
            ([texts + usage], "exact"),
            ([texts, usage], "exact"),
            ([usage], "exact"),
            ([texts], "estimated"),
            ([texts * 40], "estimated"),
            ([texts, texts], "estimated"),
        ]:
            found = read(home, *pieces)
            assert found is not None, pieces
            self.assertEqual((found.basis, found.cost_usd is None), (basis, False))
            self.assertEqual(both(self, home, pieces), found)
            if basis == "estimated":
                assert home.typed is not None
                self.assertTrue(tells_text_alone(b"".join(pieces), home.operation.mark, home.operation.also))

    def test_takes_the_streams_of_messages(self) -> None:
        """Whose beginning has the input, and whose end the output, be they in one read or in two."""
        home = dialect("api", "anthropic", PRICES, PATHS["messages"])
        start, text, end = (events(each, named=True) for each in (STARTED, DELTA, ENDED))
        more = events({**ENDED, "usage": {**MESSAGE_USAGE, "output_tokens": 77}}, named=True)
        for pieces, used in [
            ([start + text + end], (160, 50, 100, 25, 5)),
            ([start, text, end], (160, 50, 100, 25, 5)),
            ([start + text * 30, text, more], (160, 50, 100, 77, 0)),
        ]:
            found = read(home, *pieces)
            assert found is not None, pieces
            self.assertEqual((found[:5], found.basis, found.cost_usd is None), (used, "exact", False))
            self.assertEqual(both(self, home, pieces), found)

    def test_a_later_zero_erases_nothing(self) -> None:
        """Not within a member, either."""
        home = dialect("api", "anthropic", PRICES, PATHS["messages"])
        thought = {"output_tokens_details": {"thinking_tokens": 5}}
        before = events({**STARTED, "message": {**STARTED["message"], "usage": {**MESSAGE_USAGE, **thought}}})
        for later in [
            dict.fromkeys(("output_tokens", "input_tokens", "cache_read_input_tokens"), 0),
            {"output_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 7}},
            {"output_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}},
            {"output_tokens": 0, "cache_creation": {}, "output_tokens_details": {}},
            {"output_tokens": 3, "output_tokens_details": {"thinking_tokens": 0}, "cache_creation": None},
        ]:
            pieces = [before + events({**ENDED, "usage": later})]
            self.assertIsNotNone(read(home, *pieces))
            used = both(self, home, pieces)
            self.assertEqual((used.output_tokens, used.cached_tokens), (later["output_tokens"] or 25, 50), later)

    def test_leaves_the_unusual_messages_to_the_general_reading(self) -> None:
        home = dialect("api", "anthropic", PRICES, PATHS["messages"])
        start, end = events(STARTED), events(ENDED)
        tiers = [{"usage": {**MESSAGE_USAGE, "service_tier": tier}} for tier in ("standard", "priority")]
        for pieces in [
            [start],
            [end],
            [end, start],
            [start, end, end],
            [start, events({**ENDED, "model": CLAUDE})],
            [start, events({**ENDED, "usage": {"output_tokens": 5, "iterations": []}})],
            [events({**STARTED, "usage": {"output_tokens": 3}}), end],
            [events({**STARTED, "message": {**STARTED["message"], **tiers[0]}}), events({**ENDED, **tiers[1]})],
        ]:
            self.assertIsNone(read(home, *pieces), pieces)
            both(self, home, pieces)

    def test_leaves_the_unusual_to_the_general_reading(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        texts, usage = events(*TEXTS[:2]), events(USAGE_CHUNK)
        for pieces in [
            [texts, usage, usage],
            [texts + usage + usage],
            [texts + usage[:-1]],
            [texts.replace(b"\n", b"\r\n") + usage],
            [texts + usage, events({"error": {"code": "x"}})],
            [texts + events({**USAGE_CHUNK, "item": {"type": "web_search_call"}})],
            [events({"choices": []})],
            [texts + events({**USAGE_CHUNK, "model": ""})],
            [usage + b"\n\n" * LONG],
            [texts + b"event: a\nevent: b\n" + usage],
            [texts + b"id: 1\n" + usage],
        ]:
            self.assertIsNone(read(home, *pieces), pieces)
            both(self, home, pieces)

    def test_so_it_does_where_the_head_of_a_response_counts(self) -> None:
        """Bedrock's tells the tokens that no event does."""
        home = dialect("api", "aws", PRICES, PATHS["messages"])
        lines = [b"x-amzn-bedrock-%b-token-count: 5" % each for each in (b"input", b"output")]
        found = []
        for each in (home, home._replace(typed=None)):
            meter = Meter(each, [b"Content-Type: " + SSE, *lines])
            meter.feed(events({"model": "claude-sonnet-4-5"}))
            found.append(meter.measured(asked="", given=lambda: PromptEstimate(40, 80), complete=True, at=NOW))
        self.assertEqual(found[0], found[1])
        self.assertEqual((found[0].basis, found[0].input_tokens), ("exact", 5))

    def test_a_stream_that_tells_more_with_each_event_is_read_in_the_general_way(self) -> None:
        home = dialect("api", "google", PRICES, PATHS["generate"])
        self.assertIsNone(read(home, events(*GEMINI)))
        both(self, home, [events(*GEMINI)])

    def test_nothing_of_it_is_kept(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        assert home.typed is not None
        stream = EventStreamReader(home.operation.mark, home.operation.also)
        stream.feed(events(USAGE_CHUNK, done=True))
        self.assertIsNotNone(home.typed.measured_stream(stream, "", b"", NOW, lambda: PromptEstimate(40, 80)))
        self.assertEqual(list(stream.usage_events()), [])

    def test_an_endpoint_that_makes_no_text_is_charged_for_its_input_alone(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["embeddings"])
        usage = both(self, home, [events({"model": BODIES["embeddings"]["model"]})])
        self.assertEqual((usage.output_tokens, usage.details), (0, {"input_bound": 80}))
