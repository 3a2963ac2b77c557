"""What a request can cost at most."""

from __future__ import annotations

import json
import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.http.request_reader import RequestContent
from llmproxy.metering.catalog import Operations
from llmproxy.metering.cost_ceiling import FREE_OF_CHARGE, MAX_COUNTED_TOKENS, CostCeiling, UsageCeiling
from llmproxy.metering.estimating import MAX_CONTEXT_TOKENS
from llmproxy.metering.prices import OwnPrice, Prices
from tests.support.reading import read

UNREAD = read(b"neither JSON nor a form")
AT = 1_794_992_800.0
PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "own": "", "google": "google"}
APIS = {"openai": "openai", "anthropic": "anthropic", "own": "generic", "google": "google"}
SETTINGS = Settings(
    default_api="openai",
    apis={
        name: Api(provider=provider, base_url="http://127.0.0.1:1", allowed_endpoints=("/**",))  # type: ignore[arg-type]
        for name, provider in APIS.items()
    },
)
GENERATE = b"/v1beta/models/g:generateContent"
CHAT = b"/v1/chat/completions"


class WorstTests(unittest.TestCase):
    def setUp(self) -> None:
        self.worst = CostCeiling(Prices([OwnPrice("own", "mine-*", 1.0, 2.0)]), PROVIDERS, Operations(SETTINGS))

    def input(self, api: str, model: str, content: RequestContent, size: int) -> int:
        return self.worst.bound(b"POST", api, CHAT, model, content, size, 7).input

    def cost(self, api: str, model: str) -> float | None:
        return self.worst.cost(api, model, UsageCeiling(1_000_000, 100_000, {}), AT)

    def test_no_more_than_the_model_can_read(self) -> None:
        self.assertEqual(self.input("openai", "gpt-4o", UNREAD, 50_000_000), 128_000)
        self.assertEqual(self.input("openai", "gpt-4o", UNREAD, 500), 500)

    def test_what_can_be_read_is_reckoned_by_what_it_holds(self) -> None:
        body = b'{"input":"' + b"hello there " * 1000 + b'"}'
        self.assertTrue(2000 < self.input("openai", "gpt-4o", read(body), len(body)) < 3000)

    def test_a_model_that_nobody_knows(self) -> None:
        self.assertEqual(self.input("own", "mine-1", UNREAD, 50_000_000), MAX_CONTEXT_TOKENS)
        self.assertEqual(self.input("openai", "", UNREAD, 50_000_000), MAX_CONTEXT_TOKENS)

    def test_the_providers_price(self) -> None:
        cost = self.cost("openai", "gpt-4o")
        assert cost is not None
        self.assertAlmostEqual(cost, 3.5)

    def test_writing_to_the_providers_cache_costs_more(self) -> None:
        """Whether a request does that is not known beforehand."""
        units = {"input_tokens": 1_000_000, "output_tokens": 100_000}
        plain = Prices().cost("anthropic", "anthropic", "", "claude-3-5-haiku-latest", units, AT)
        cost = self.cost("anthropic", "claude-3-5-haiku-latest")
        assert cost is not None and plain is not None
        self.assertGreater(cost, plain)

    def test_prices_of_your_own(self) -> None:
        self.assertEqual(self.cost("own", "mine-1"), 1.2)

    def test_never_less_than_it_will_cost(self) -> None:
        """Whatever the size: the price of a token may hang on how many there are."""
        prices = Prices()
        for model in ("gpt-4o", "gpt-4.1", "gpt-5"):
            for size, made in ((1, 1), (5_000, 4_000), (100_000, 10), (100_001, 10), (900_000, 64_000)):
                units = {"input_tokens": size, "output_tokens": made}
                cost = prices.cost("openai", "openai", "", model, units, AT)
                worst = self.worst.cost("openai", model, UsageCeiling(size, made, {}), AT)
                assert cost is not None and worst is not None, model
                self.assertGreaterEqual(worst * (1 + 1e-9), cost, (model, size, made))

    def test_remembered_for_a_minute(self) -> None:
        self.worst.cost("openai", "gpt-4o", UsageCeiling(10, 10, {}), AT)
        asked = 0

        def cost(*given: object) -> float:
            nonlocal asked
            asked += 1
            return 1.0

        self.worst._prices.cost = cost  # type: ignore[method-assign, assignment]
        for at in (AT, AT + 59, AT + 61, AT + 62):
            self.worst.cost("openai", "gpt-4o", UsageCeiling(10, 10, {}), at)
        self.assertEqual(asked, 5)

    def asked(self, api: str, path: str, model: str, body: object) -> float | None:
        content = read(json.dumps(body).encode())
        return self.worst.cost(api, model, self.worst.bound(b"POST", api, path.encode(), model, content, 100, 1000), AT)

    def test_what_is_billed_beside_tokens(self) -> None:
        """Calls that it offers, speech, pictures, films; nothing that costs is 0."""
        plain = self.asked("openai", "/v1/responses", "gpt-4.1", {"max_output_tokens": 10})
        tools = {"max_output_tokens": 10, "tools": [{"type": "web_search"}], "max_tool_calls": 3}
        searching = self.asked("openai", "/v1/responses", "gpt-4.1", tools)
        assert plain is not None and searching is not None
        self.assertGreaterEqual(searching, plain + 0.03)
        for path, model, body, right in (
            ("/v1/audio/speech", "tts-1", {"input": "word " * 800}, 0.06),
            ("/v1/images/generations", "dall-e-3", {"n": 2}, 0.08),
            ("/v1/videos", "sora-2", {"seconds": 8}, 0.8),
            ("/v1/moderations", "omni-moderation-latest", {"input": "x"}, 0.0),
        ):
            cost = self.asked("openai", path, model, body)
            assert cost is not None, path
            self.assertAlmostEqual(cost, right, 6)

    def test_what_nobody_can_tell(self) -> None:
        """Batches, fine-tuning, models that bill tokens of sound."""
        for api, path, model in (
            ("openai", "/v1/batches", "gpt-4o"),
            ("openai", "/v1/fine_tuning/jobs", "gpt-4o"),
            ("openai", "/v1/audio/speech", "gpt-4o-mini-tts"),
            ("anthropic", "/v1/messages/batches", "claude-haiku-4-5"),
        ):
            self.assertIsNone(self.asked(api, path, model, {"x": 1}), path)

    def test_the_terms_that_it_asks_for(self) -> None:
        """The dearest that it may be answered with, and unknown where that has no price."""
        messages, chat = "/v1/messages", "/v1/chat/completions"
        plain = self.asked("anthropic", messages, "claude-opus-4-8", {"max_tokens": 100})
        assert plain is not None
        for more, factor in (({"speed": "fast"}, 2.0), ({"inference_geo": "us"}, 1.1), ({"service_tier": "auto"}, 1.0)):
            cost = self.asked("anthropic", messages, "claude-opus-4-8", {"max_tokens": 100, **more})
            assert cost is not None
            self.assertAlmostEqual(cost / plain, factor, delta=0.06)  # the request is longer by those words
        usual, flex, priority = (
            self.asked("openai", chat, "o3", {"service_tier": tier}) for tier in ("default", "flex", "priority")
        )
        assert usual is not None and flex is not None and priority is not None
        self.assertAlmostEqual(usual / flex, 1.0, delta=0.01)  # which may be served as usual
        self.assertGreater(priority, usual * 1.5)
        self.assertIsNone(self.asked("openai", chat, "gpt-3.5-turbo", {"service_tier": "priority"}))

    def test_tools_that_are_too_long_to_be_read(self) -> None:
        """May be searches."""
        tools = [{"type": "function", "name": "x" * 270_000}]
        cost = self.asked("openai", "/v1/responses", "gpt-4.1", {"tools": tools, "max_output_tokens": 1})
        assert cost is not None
        self.assertGreater(cost, 0.1)

    def test_a_price_for_each_request(self) -> None:
        worst = CostCeiling(Prices([OwnPrice("own", "*", 1.0, 1.0, per_request=0.5)]), PROVIDERS, Operations(SETTINGS))
        self.assertAlmostEqual(worst.cost("own", "m", UsageCeiling(1_000_000, 0, {}), AT) or 0.0, 1.5)
        self.assertAlmostEqual(worst.cost("own", "m", UsageCeiling(10, 0, {}), AT) or 0.0, 0.50001)

    def test_no_price(self) -> None:
        self.assertIsNone(self.cost("own", "another"))
        self.assertIsNone(self.cost("openai", "no-such-model"))


WORST = CostCeiling(Prices(), PROVIDERS, Operations(SETTINGS))


def bound(
    body: object, path: bytes = CHAT, default: int = 7, api: str = "openai", model: str = "gpt-4o"
) -> UsageCeiling:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WORST.bound(b"POST", api, path, model, read(sent, piece=100), len(sent), default)


def output(body: object, path: bytes = CHAT, default: int = 7) -> int:
    return bound(body, path, default).output


class BatchTests(unittest.TestCase):
    """Batches whose requests stand in their bodies."""

    PATH = b"/v1/messages/batches"

    def setUp(self) -> None:
        prices = Prices([OwnPrice("anthropic", "mine-*", 10.0, 20.0)])
        self.worst = CostCeiling(prices, PROVIDERS, Operations(SETTINGS))

    def cost(
        self, *requests: tuple[str, dict[str, object]], api: str = "anthropic"
    ) -> tuple[UsageCeiling, float | None]:
        listed = [{"custom_id": "c", "params": {"model": model, **params}} for model, params in requests]
        body = json.dumps({"requests": listed}).encode()
        bound = self.worst.bound(b"POST", api, self.PATH, "", read(body), len(body), 500)
        return bound, self.worst.cost(api, "", bound, AT)

    def test_each_at_half_the_price_of_its_model(self) -> None:
        """The sum of their maxima; where one sets none, the API's."""
        bound, cost = self.cost(
            ("claude-sonnet-4-5", {"max_tokens": 1_000_000}), ("claude-opus-4-5", {"max_tokens": 1_000_000})
        )
        self.assertEqual((bound.output, bound.choices), (2_000_000, 2))
        assert cost is not None
        self.assertTrue((15 + 25) / 2 <= cost < (15 + 25) / 2 + 0.01, cost)
        self.assertEqual(self.cost(("claude-sonnet-4-5", {}))[0].output, 500)

    def test_an_own_price(self) -> None:
        """Holds as it is: nobody knows what a contract says of batches."""
        _, cost = self.cost(("mine-1", {"max_tokens": 1_000_000}))
        assert cost is not None
        self.assertTrue(20 <= cost < 20.01)

    def test_what_cannot_be_told(self) -> None:
        """One model without a price, one that is not named, none at all, and a list too long to be read."""
        many = [("claude-sonnet-4-5", {"messages": "x" * 1000})] * 400
        for requests in ([("claude-sonnet-4-5", {}), ("nobody-knows", {})], [("", {})], [], many):
            self.assertIsNone(self.cost(*requests)[1])  # type: ignore[arg-type]
        bound = self.worst.bound(b"POST", "openai", b"/v1/batches", "", read(b'{"input_file_id": "f"}'), 22, 500)
        self.assertIsNone(self.worst.cost("openai", "", bound, AT))


class OutputTests(unittest.TestCase):
    def test_every_name_of_it(self) -> None:
        self.assertEqual(output({"max_tokens": 100}), 100)
        self.assertEqual(output({"max_completion_tokens": 100}), 100)
        self.assertEqual(output({"max_output_tokens": 100}, b"/v1/responses"), 100)
        self.assertEqual(output({"generationConfig": {"maxOutputTokens": 100}}, GENERATE), 100)
        self.assertEqual(output({"inferenceConfig": {"maxTokens": 100}}, b"/model/m/converse"), 100)

    def test_choices(self) -> None:
        self.assertEqual(output({"max_tokens": 100, "n": 3}), 300)
        self.assertEqual(output({"n": 3}), 21)
        self.assertEqual(output({"generationConfig": {"candidateCount": 2, "maxOutputTokens": 5}}, GENERATE), 10)

    def test_none_given(self) -> None:
        for body in ({"messages": []}, {"max_tokens": None}, {"max_tokens": True}, {"max_tokens": -1}):
            self.assertEqual(output(body), 7)
        self.assertEqual(output(b"neither JSON nor a form"), 7)
        self.assertEqual(output(b""), 0)

    def test_what_only_reads(self) -> None:
        for path in (b"/v1/embeddings", b"/v1/messages/count_tokens", b"/v1beta/models/g:countTokens"):
            self.assertEqual(output({"max_tokens": 100}, path), 0)

    def test_only_its_own(self) -> None:
        """What stands in a message, a tool's input or a schema is not the request's own."""
        for decoy in (
            {"messages": ['{"max_tokens": 99999}']},
            {"messages": [{"content": [{"type": "tool_use", "input": {"max_tokens": 99999, "n": 9}}]}]},
            {"tools": [{"input_schema": {"properties": {"max_tokens": {"default": 9}, "n": 5}}}]},
            {"metadata": {"max_tokens": 99999, "generationConfig": {"maxOutputTokens": 99}}},
        ):
            self.assertEqual(output({**decoy, "max_tokens": 5}), 5)
            self.assertEqual(output(decoy), 7)

    def test_disguised(self) -> None:
        self.assertEqual(output(rb'{"max\u005ftokens": 100000}'), 100_000)
        self.assertEqual(output(b'{"max_tokens"\t:\r\n 1.5e3}'), 1500)

    def test_beyond_all_reason(self) -> None:
        self.assertEqual(output(b'{"max_tokens": 999999999999999999, "n": 999999}'), MAX_COUNTED_TOKENS)
        self.assertEqual(output(b'{"\\u006eo": 1, "max_tokens": 1e99}'), MAX_COUNTED_TOKENS)

    @given(st.binary(max_size=300))
    def test_anything(self, body: bytes) -> None:
        """No body does more harm than being bounded."""
        self.assertGreaterEqual(output(b"{" + body), 0)
        self.assertGreaterEqual(output(rb"{\u0000" + body), 0)


class BesideTests(unittest.TestCase):
    def test_free(self) -> None:
        for path in (b"/v1/files", b"/v1/moderations", b"/v1/responses/r/cancel"):
            self.assertEqual(bound({"model": "gpt-4o"}, path), FREE_OF_CHARGE)
        self.assertEqual(bound(b""), FREE_OF_CHARGE)

    def test_what_nobody_can_tell(self) -> None:
        """Has no bound, and so no cost."""
        made = bound({"input_file_id": "f-1", "endpoint": "/v1/chat/completions"}, b"/v1/batches")
        self.assertIsNone(WORST.cost("openai", "gpt-4o", made, AT))

    def test_speech(self) -> None:
        made = bound({"model": "tts-1", "input": "x" * 4000}, b"/v1/audio/speech", model="tts-1")
        self.assertAlmostEqual(WORST.cost("openai", "tts-1", made, AT) or 0, 0.06)

    def test_tools_that_search(self) -> None:
        plain = bound({"input": "x"}, b"/v1/responses")
        searching = bound({"input": "x", "tools": [{"type": "web_search"}]}, b"/v1/responses")
        costs = [WORST.cost("openai", "gpt-4o", each, AT) or 0 for each in (plain, searching)]
        self.assertGreater(costs[1] - costs[0], 0.09)

    def test_transcriptions(self) -> None:
        """As many seconds as the file can hold."""
        form = (
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nID3%b\r\n--b--\r\n'
        ) % bytes(240_000)
        content = read(form, [b"Content-Type: multipart/form-data; boundary=b"])
        made = WORST.bound(b"POST", "openai", b"/v1/audio/transcriptions", "whisper-1", content, len(form), 7)
        self.assertAlmostEqual(WORST.cost("openai", "whisper-1", made, AT) or 0, 0.006, 4)


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.sampled_from([1, True, 1.0, 0, -1, None, 64, "64", 10**12]),
        "max_completion_tokens": st.integers(0, 500),
        "n": st.sampled_from([1, True, 3, 2.0]),
        "stream": st.booleans(),
        "service_tier": st.sampled_from(["default", "priority", "flex", "scale"]),
        "tools": st.sampled_from([[], [{"type": "web_search"}]]),
        "messages": st.lists(st.text(max_size=50), max_size=3).map(lambda texts: [{"content": t} for t in texts]),
        "user": st.sampled_from(["u", "u" * 1000]),
    },
)


class UsualTests(unittest.TestCase):
    """The short way says what the long one does, or nothing."""

    worst = CostCeiling(Prices([OwnPrice("own", "mine-*", 1.0, 2.0)]), PROVIDERS, Operations(SETTINGS))

    @given(
        MEMBERS,
        st.sampled_from([("openai", "gpt-4o"), ("openai", "gpt-4"), ("openai", "nobody-knows"), ("openai", ""),
                         ("own", "mine-1"), ("anthropic", "claude-3-5-haiku-latest")]),
        st.sampled_from([CHAT, b"/v1/embeddings", b"/v1/messages", b"/v1/responses", b"/v1/unheard-of", b"/v1/files"]),
        st.sampled_from([AT, AT + 30, AT + 100]),
    )  # fmt: skip
    def test_the_same(self, members: dict[str, object], at_whom: tuple[str, str], path: bytes, at: float) -> None:
        (api, model), worst = at_whom, self.worst
        body = json.dumps(members).encode()
        content = read(body)
        usual = worst.usual(b"POST", api, path, model, content, 7, at)
        if usual is not None:
            bound = worst.bound(b"POST", api, path, model, content, len(body), 7)
            self.assertEqual(usual, (bound.tokens, worst.cost(api, model, bound, at)))
            self.assertFalse(bound.free)

    def test_most_requests_are(self) -> None:
        body = (
            b'{"model": "gpt-4o", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
        )
        self.assertIsNotNone(self.worst.usual(b"POST", "openai", CHAT, "gpt-4o", read(body), 7, AT))

    def test_others(self) -> None:
        for body in (
            b'{"tools": [{"type": "web_search"}]}',
            b'{"max_tokens": 1, "max_tokens": 2}',
            b"[1]",
            b"",
            b"no JSON",
            b'{"a": 1',
        ):
            self.assertIsNone(self.worst.usual(b"POST", "openai", CHAT, "gpt-4o", read(body), 7, AT), body)

    def test_those_that_say_much_of_themselves(self) -> None:
        """Are known again as well, and told from others that differ at the end alone."""
        tools: list[dict[str, object]] = [{"type": "function", "function": {"name": f"f{n}"}} for n in range(50)]
        for most in (9, 10, 9):
            content = read(json.dumps({"tools": tools, "messages": "some words", "max_tokens": most}).encode())
            bound = self.worst.bound(b"POST", "openai", CHAT, "gpt-4o", content, content.size, 7)
            usual = self.worst.usual(b"POST", "openai", CHAT, "gpt-4o", content, 7, AT)
            self.assertEqual(usual, (bound.tokens, self.worst.cost("openai", "gpt-4o", bound, AT)))
        content = read(json.dumps({"tools": [*tools, {"type": "web_search"}], "max_tokens": 9}).encode())
        self.assertIsNone(self.worst.usual(b"POST", "openai", CHAT, "gpt-4o", content, 7, AT))

    def test_a_price_that_has_changed(self) -> None:
        worst = CostCeiling(Prices([OwnPrice("own", "mine-*", 1.0, 2.0)]), PROVIDERS, Operations(SETTINGS))
        asked = (b"POST", "own", CHAT, "mine-1", read(b'{"max_tokens": 1000000}'), 7, AT)
        before = worst.usual(*asked)
        worst.reconfigure(Prices([OwnPrice("own", "mine-*", 1.0, 4.0)]), PROVIDERS)
        after = worst.usual(*asked)
        assert before is not None and after is not None and before[1] is not None and after[1] is not None
        self.assertAlmostEqual(after[1] - before[1], 2.0)
