"""The typed reading of usual responses tells what the general one tells, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.body_readers import MAX_BODY_BYTES
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Dialect, Meter, dialect
from llmproxy.metering.prices import OwnPrice, Prices
from llmproxy.metering.typed_responses import TYPED_RESPONSES
from llmproxy.metering.typed_usage import MAX_DIGITS, MAX_NESTED_VALUES, is_plain
from llmproxy.model import Usage
from tests.support.examples import examples
from tests.unit.metering.samples import CHAT_USAGE, CLAUDE, GEMINI, JSON, MESSAGE, RESPONSE

NOW = 1_790_000_000.0
PRICES = Prices()
PATHS = {
    "chat": b"/v1/chat/completions",
    "embeddings": b"/v1/embeddings",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
    "generate": b"/v1beta/models/gemini-2.5-flash:generateContent",
}
PROVIDERS = ["openai", "azure", "anthropic", "google", "mistral", "groq", "deepseek", "x-ai", "openrouter", ""]
HOMES = {"chat": "openai", "embeddings": "openai", "responses": "openai", "messages": "anthropic", "generate": "google"}
MESSAGE_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    "output_tokens": 25,
    "service_tier": "standard",
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 1},
    "inference_geo": "global",
}
MESSAGE_BODY = {**MESSAGE, "usage": MESSAGE_USAGE}
CHAT_BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Grüße"}, "finish_reason": "stop"}],
    "usage": CHAT_USAGE,
    "service_tier": "default",
}
RESPONSE_BODY = {**RESPONSE, "output": [{"type": "reasoning"}, {"type": "message", "content": []}], "error": None}
EMBEDDINGS_BODY = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": [0.25, -1e-3]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
BODIES: dict[str, dict[str, Any]] = {
    "chat": CHAT_BODY,
    "embeddings": EMBEDDINGS_BODY,
    "responses": RESPONSE_BODY,
    "messages": MESSAGE_BODY,
    "generate": GEMINI[2],
}
NAMES = [
    *("usage", "usageMetadata", "usage_info", "model", "modelVersion", "service_tier", "serviceTier", "trafficType"),
    *("error", "type", "object", "event_type", "item", "output", "candidates", "choices", "tool_usage", "tools"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
    *("reasoning_tokens", "audio_tokens", "cache_write_tokens", "image_tokens", "text_tokens", "cost", "speed"),
    *("prompt_cache_hit_tokens", "prompt_audio_seconds", "iterations", "server_tool_use", "web_search_requests"),
    *("code_execution_requests", "cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    *("cache_creation_input_tokens", "cache_read_input_tokens", "thinking_tokens", "inference_geo"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "totalTokenCount"),
    *("toolUsePromptTokenCount", "promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails", "modality"),
    *("tokenCount", "groundingMetadata", "webSearchQueries", "response", "message", "billed_units", "seconds"),
    *("search_units", "inputTokens", "x_groq", "meta", "prompt_eval_count", "pages_processed", "num_requests"),
]
WORDS = st.sampled_from(
    [
        *("", "error", "response", "message", "flex", "priority", "batch", "Standard", "fast", "us", "TEXT", "AUDIO"),
        *("web_search_call", "function_call", "gpt-4o", "gpt-4o-search-preview", "models/gemini-2.5-pro", CLAUDE),
        *("models/", "o1", "\x00", "é", "x" * 129, "list", "response.failed", "standard_only"),
    ]
)
COUNTS = st.integers(0, 500) | st.sampled_from([0, 1, 2**40, 2**40 + 1, 2**53, 2**63, 10**30, -1, 250_000])
LEAVES = st.none() | st.booleans() | COUNTS | st.floats(0, 1000) | st.floats() | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all objects within a JSON value."""
    found = [above] if isinstance(value, dict) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [way for name, each in items for way in places(each, (*above, name))]


@st.composite
def bodies(draw: Callable[..., Any], least: int = 0) -> tuple[str, bytes]:
    """A body that is usual but for some members, written in some way or other."""
    kind = draw(st.sampled_from(sorted(BODIES)))
    body = altered(draw, BODIES[kind], draw(st.integers(least, 3)))
    text = json.dumps(
        body, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])), allow_nan=True
    ).encode("utf-8", "surrogatepass")
    return kind, text


def altered(draw: Callable[..., Any], usual: Any, times: int) -> Any:
    """A value of which some members are others."""
    body = json.loads(json.dumps(usual))
    for _ in range(times):
        target = body
        for step in draw(st.sampled_from(places(body))):
            target = target[step]
        act = draw(st.sampled_from(["change", "change", "count", "count", "add", "remove"]))
        name = draw(st.sampled_from(sorted(target) or NAMES) if act != "add" else st.sampled_from(NAMES))
        if act == "remove":
            target.pop(name, None)
        else:
            target[name] = draw(COUNTS if act == "count" else VALUES)
    return body


def measured(
    home: Dialect, body: bytes, *, asked: str = "", tier: bytes = b"", cut: int = 0, complete: bool = True
) -> tuple[Usage, str]:
    lines = [b"Content-Type: " + JSON, *([b"x-gemini-service-tier: " + tier] if tier else [])]
    meter = Meter(home, lines)
    for piece in (body[:cut], body[cut:]) if cut else (body,):
        meter.feed(piece)
    usage = meter.measured(asked=asked, given=lambda: PromptEstimate(40, 80), complete=complete, at=NOW)
    return usage, meter.error


class TypedUsageTests(SynchronousTestCase):
    def both(self, home: Dialect, body: bytes, **how: Any) -> None:
        general = measured(home._replace(typed=None), body, **how)
        for _ in range(2):  # once with the price to be made ready, once with that
            typed = measured(home, body, **how)
            self.assertEqual(repr(typed), repr(general), body)

    @examples(3000)
    @given(
        bodies(),
        st.sampled_from(PROVIDERS),
        st.sampled_from(["", "gpt-4o", "claude-sonnet-4-5", "nobody-knows"]),
        st.sampled_from([b"", b"", b"flex", b"Priority"]),
        st.booleans(),
    )
    def test_tells_what_the_general_reading_tells(
        self, made: tuple[str, bytes], provider: str, asked: str, tier: bytes, complete: bool
    ) -> None:
        kind, body = made
        for name in {provider, HOMES[kind]}:
            home = dialect("api", name, PRICES, PATHS[kind])
            self.both(home, body, asked=asked, tier=tier, complete=complete)

    @examples(1500)
    @given(
        bodies(),
        st.integers(0, 4000),
        st.sampled_from(
            [
                *(b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0041", b"\\", b'"', b"\n{", b"}", b",", b" ", b"\x00"),
                *(b"NaN", b"0", b".5", b"-"),
                *(b"1" * (MAX_DIGITS + 1), b"[" * 210 + b"]" * 210, b'{"a":' * 210 + b"1" + b"}" * 210),
                *(b'"usage": {}, ', b'"usage": null, ', b'"error": {"code": "x"}, '),
                b'"\\u0075sage": {"seconds": 3}, ',
                *(b'"type": "web_search_call", ', b'"type": "error", ', b'"prompt_tokens": 7, ', b'"model": "o1", '),
            ]
        ),
        st.sampled_from(["put", "put", "cut", "instead"]),
    )
    def test_so_it_does_of_a_body_that_is_damaged(
        self, made: tuple[str, bytes], place: int, piece: bytes, act: str
    ) -> None:
        kind, body = made
        place %= len(body) + 1
        if act == "cut":
            body = body[:place]
        elif piece.startswith(b'"') and piece.endswith(b", "):  # a member where members stand
            ends = [at + 1 for at in range(len(body)) if body[at : at + 1] == b"{"]
            at = ends[place % len(ends)]
            body = body[:at] + piece + body[at:]
        else:
            body = body[:place] + piece + body[place + (act == "instead") :]
        home = dialect("api", HOMES[kind], PRICES, PATHS[kind])
        self.both(home, body, asked="gpt-4o")

    @examples(300)
    @given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, 400_000), min_size=12, max_size=12), st.booleans())
    def test_measures_the_usual_responses_itself(self, kind: str, counts: list[int], own: bool) -> None:
        left = iter(counts)

        def filled(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: filled(each) for name, each in value.items()}
            if isinstance(value, list):
                return [filled(each) for each in value]
            return next(left) if value.__class__ is int and value else value

        place = TYPED_RESPONSES[kind].place
        usage = filled(BODIES[kind][place])
        if "total_tokens" in usage:
            usage["total_tokens"] = usage.get("completion_tokens", usage.get("output_tokens", 0))
        prices = Prices([OwnPrice("*", "*", 3.0, 7.0, per_request=0.01)]) if own else PRICES
        home = dialect("api", HOMES[kind], prices, PATHS[kind])
        assert home.typed is not None
        self.both(home, json.dumps({**BODIES[kind], place: usage}).encode())

    def test_takes_every_usual_response(self) -> None:
        for kind, body in BODIES.items():
            home = dialect("api", HOMES[kind], PRICES, PATHS[kind])
            assert home.typed is not None, kind
            text = json.dumps(body, ensure_ascii=False).encode()
            usage = home.typed.measured(text, "", b"", NOW)
            assert usage is not None, kind
            self.assertEqual((usage.basis, usage.cost_usd is None), ("exact", False), kind)
            self.both(home, text)
            self.both(home, text, cut=50)

    def test_leaves_the_unusual_to_the_general_reading(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        assert home.typed is not None
        for more in [
            {"error": {"code": "x"}},
            {"usage": {**CHAT_USAGE, "audio_seconds": 3}},
            {"usage": {**CHAT_USAGE, "prompt_tokens_details": {"audio_tokens": 5}}},
            {"usage": {**CHAT_USAGE, "total_tokens": 500}},
            {"usage": {}},
            {"usage": None},
            {"model": "gpt-4o-search-preview"},
            {"output": []},
            {"object": "error"},
        ]:
            body = json.dumps({**CHAT_BODY, **more}).encode()
            self.assertIsNone(home.typed.measured(body, "", b"", NOW), more)
            self.both(home, body)

    def test_what_any_dialect_looks_for_beside_the_usage_is_not_passed_over(self) -> None:
        """Each of these changes what the general reading tells of the body that it stands in."""
        call = {"type": "web_search_call", "id": "w1", "status": "completed"}
        grounding = [{"groundingMetadata": {"webSearchQueries": ["q"]}}]
        searched = {"web_search": {"num_requests": 3}}
        for kind, more in [
            *[(kind, {"error": {"code": "x"}}) for kind in BODIES],
            *[(kind, {"event_type": "error"}) for kind in BODIES],
            *[(kind, {"type": "error"}) for kind in BODIES],
            *[(kind, {"object": "error"}) for kind in BODIES],
            *[(kind, {"output": [call]}) for kind in BODIES],
            *[(kind, {"item": call, "output": None}) for kind in BODIES],
            *[(kind, {"candidates": grounding}) for kind in BODIES],
            *[(kind, {"tool_usage": searched}) for kind in BODIES],
            ("generate", {"usage": {"total_input_tokens": 3, "total_output_tokens": 4}}),
            ("generate", {"model": "gemini-2.5-pro"}),
            ("generate", {"service_tier": "flex"}),
            ("messages", {"service_tier": "batch"}),
        ]:
            home = dialect("api", HOMES[kind], PRICES, PATHS[kind])
            assert home.typed is not None
            body = json.dumps({**BODIES[kind], **more}).encode()
            general = home._replace(typed=None)
            self.assertNotEqual(measured(general, body), measured(general, json.dumps(BODIES[kind]).encode()), more)
            self.assertIsNone(home.typed.measured(body, "", b"", NOW), (kind, more))
            self.both(home, body)

    def test_what_a_price_hangs_on_is_read_from_the_response(self) -> None:
        """The tier, the speed and the place, as each kind says them; C{None} where the list has no such price."""
        for kind, more, factor in [
            ("chat", {"service_tier": "batch"}, None),
            ("responses", {"service_tier": "batch"}, None),
            ("messages", {"usage": {**MESSAGE_USAGE, "service_tier": "batch"}}, None),
            ("messages", {"usage": {**MESSAGE_USAGE, "inference_geo": "us"}}, 1.1),
            ("messages", {"usage": {**MESSAGE_USAGE, "inference_geo": "mars"}}, None),
            ("messages", {"usage": {**MESSAGE_USAGE, "speed": "odd"}}, None),
            ("chat", {"service_tier": "odd"}, None),
        ]:
            home = dialect("api", HOMES[kind], PRICES, PATHS[kind])
            assert home.typed is not None
            costs = []
            for body in ({**BODIES[kind]}, {**BODIES[kind], **more}):
                text = json.dumps(body).encode()
                usage = home.typed.measured(text, "", b"", NOW)
                assert usage is not None, more
                costs.append(usage.cost_usd)
                self.both(home, text)
            assert costs[0] is not None
            if factor is None:
                self.assertIsNone(costs[1], more)
            else:
                assert costs[1] is not None, more
                self.assertAlmostEqual(costs[1] / costs[0], factor, msg=str(more))

    def test_is_not_used_where_a_provider_counts_in_a_way_of_its_own_or_says_what_it_charged(self) -> None:
        self.assertIsNone(dialect("api", "x-ai", PRICES, PATHS["chat"]).typed)
        self.assertIsNone(dialect("api", "openrouter", PRICES, PATHS["chat"]).typed)
        self.assertIsNone(dialect("api", "anthropic", PRICES, PATHS["chat"]).typed)
        self.assertIsNone(dialect("api", "openai", PRICES, b"/v1/moderations").typed)

    def test_a_provider_that_counts_no_writing_is_not_read_as_one_that_does(self) -> None:
        home = dialect("api", "mistral", PRICES, PATHS["chat"])
        assert home.typed is not None
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cache_write_tokens": 4}}
        body = json.dumps({"model": "mistral-small-latest", "usage": usage}).encode()
        self.assertIsNone(home.typed.measured(body, "", b"", NOW))
        self.both(home, body)

    def test_a_price_holds_for_its_time(self) -> None:
        home = dialect("api", "deepseek", PRICES, PATHS["chat"])
        usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
        body = json.dumps({"model": "deepseek-chat", "usage": usage}).encode()
        for at in [NOW, NOW + 3600 * 9, 1_740_000_000.0, 1_745_000_000.0, NOW]:
            found = []
            for each in (home, home._replace(typed=None)):
                meter = Meter(each, [b"Content-Type: " + JSON])
                meter.feed(body)
                found.append(meter.measured(asked="", given=lambda: PromptEstimate(0, 0), complete=True, at=at))
            self.assertEqual(found[0], found[1], at)

    def test_names_without_end_are_not_kept(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        assert home.typed is not None
        self.both(home, json.dumps({**CHAT_BODY, "model": "m" * 500}).encode())
        for number in range(600):
            self.both(home, json.dumps({**CHAT_BODY, "model": f"m{number}"}).encode())

    def test_the_whole_body_is_given_back(self) -> None:
        class Account:
            tight = False
            held = 0

            def hold(self, count: int) -> None:
                self.held += count

        account = Account()
        meter = Meter(dialect("api", "openai", PRICES, PATHS["chat"]), [b"Content-Type: " + JSON], account)
        meter.feed(json.dumps(CHAT_BODY).encode())
        self.assertGreater(account.held, 0)
        meter.measured(asked="", given=lambda: PromptEstimate(0, 0), complete=True, at=NOW)
        self.assertEqual(account.held, 0)

    def test_what_is_too_long_to_be_kept_is_scanned(self) -> None:
        home = dialect("api", "openai", PRICES, PATHS["chat"])
        self.both(home, json.dumps({**CHAT_BODY, "choices": ["x" * MAX_BODY_BYTES]}).encode())


class PlainTests(SynchronousTestCase):
    """What is plain, the general parser takes if the typed decoder does."""

    def test_nesting(self) -> None:
        for depth in (MAX_NESTED_VALUES, MAX_NESTED_VALUES + 1, MAX_NESTED_VALUES + 2):
            body = b"[" * depth + b"]" * depth
            self.assertEqual(is_plain(body), depth <= MAX_NESTED_VALUES)
        from_json(b"[" * MAX_NESTED_VALUES + b"]" * MAX_NESTED_VALUES)

    def test_digits(self) -> None:
        for before in range(0, 3 * MAX_DIGITS, 97):
            body = b" " * before + b"1" * (MAX_DIGITS + 1) + b" " * before
            self.assertFalse(is_plain(body), before)
        self.assertTrue(is_plain(b"[" + b"0.0123456," * 3000 + b"1]"))
        from_json(b"1" * MAX_DIGITS)
        self.assertRaises(ValueError, from_json, b"1" * (MAX_DIGITS + 1))

    def test_text(self) -> None:
        self.assertTrue(is_plain("Grüße, 世界 🌍".encode()))
        for odd in (b"\xff", b"\xed\xa0\x80", b"\xc3"):
            self.assertFalse(is_plain(b'"' + odd + b'"'))
