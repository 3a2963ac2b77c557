"""Prices are those of genai-prices, computed by itself."""

from __future__ import annotations

from datetime import UTC, datetime

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from genai_prices.types import Usage as Counts
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.prices import OwnPrice, Prices, Terms, list_price
from tests.support.examples import examples

SOLD = [
    (provider, model)
    for provider in get_snapshot().providers
    if provider.id in ("openai", "anthropic", "google", "mistral", "azure", "aws", "groq", "x-ai", "deepseek")
    for model in provider.models
]
UNITS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "output_reasoning_tokens")
MORE = ("input_audio_tokens", "input_text_tokens", "web_searches", "cache_write_5m_tokens", "audio_seconds")
NOW = 1_790_000_000.0


class CostTests(SynchronousTestCase):
    """What a request costs."""

    prices = Prices()

    @examples(400)
    @given(
        st.sampled_from(range(len(SOLD))),
        st.dictionaries(st.sampled_from(UNITS), st.integers(0, 2_000_000), max_size=5),
        st.dictionaries(st.sampled_from(MORE), st.integers(0, 1000), max_size=2),
        st.sampled_from([Terms(), Terms("flex"), Terms("priority"), Terms(speed="fast"), Terms(batch=True)]),
        st.floats(1_700_000_000, 1_900_000_000),
    )
    def test_as_listed(self, which: int, units: dict[str, int], more: dict[str, int], terms: Terms, at: float) -> None:
        """For every model, whatever was used, at any time and tier: the list's own sum, or unknown, never less."""
        provider, model = SOLD[which]
        used: dict[str, int | float] = {**units, **more}
        cost = list_price(model, provider, at, terms).cost(used)
        moment = datetime.fromtimestamp(at, UTC)
        context = {
            **({"service_tier": terms.tier} if terms.tier else {}),
            **({"speed": terms.speed} if terms.speed else {}),
            **({"processing": "batch"} if terms.batch else {}),
        }
        try:
            total = model.calc_price(
                Counts(**used), provider, genai_request_timestamp=moment, price_context=context
            ).total_price
        except ValueError:
            return  # what does not add up has no price there; here it has at least that of its main counts
        if cost is not None and not (terms.tier == "flex" or provider.id == "groq"):
            self.assertAlmostEqual(cost, float(total), 9)
        elif not more and terms == Terms() and isinstance(model.prices, ModelPrice):
            priced = {key for key, value in model.prices.__dict__.items() if value is not None}
            self.assertFalse(cost is None and {"input_mtok", "output_mtok"} <= priced)

    def test_by_name(self) -> None:
        """The names that providers answer with, in a provider's own list or that of one whose models it sells."""
        for provider, model, units in (
            ("openai", "gpt-4o-2024-08-06", {"input_tokens": 1000, "output_tokens": 10}),
            ("azure", "gpt-4o-2024-08-06", {"input_tokens": 1000, "output_tokens": 10}),
            ("google", "gemini-2.5-pro", {"input_tokens": 300_000, "output_tokens": 10}),
            ("google", "models/gemini-2.5-pro", {"input_tokens": 300, "output_tokens": 10}),
            ("anthropic", "claude-sonnet-4-5-20250929", {"input_tokens": 900, "cache_read_tokens": 500}),
            ("mistral", "mistral-small-latest", {"input_tokens": 900, "output_tokens": 3}),
        ):
            moment = datetime.fromtimestamp(NOW, UTC)
            expected = genai_prices.calc_price(
                Counts(**units), model.removeprefix("models/"), provider_id=provider, genai_request_timestamp=moment
            )
            cost = self.prices.cost("api", provider, "", model, units, NOW)
            self.assertAlmostEqual(cost or -1, float(expected.total_price), 12)

    def test_details_that_do_not_add_up(self) -> None:
        """More read from the cache than was given at all, or more sound: then the cost is not known."""
        for model, more in (("gpt-audio", {"input_audio_tokens": 50}), ("gpt-4o", {"cache_read_tokens": 50})):
            units = {"input_tokens": 10, "output_tokens": 5, **more}
            self.assertIsNone(self.prices.cost("api", "openai", "", model, units, NOW), more)

    def test_own_prices(self) -> None:
        """Before any list; what is not told apart costs as any input."""
        prices = Prices(
            [
                OwnPrice("house", "*", 2.0, 4.0),
                OwnPrice("house", "*-free"),
                OwnPrice("*", "gpt-4o*", 1.0, 1.0, 0.0, 3.0),
            ]
        )
        units = {"input_tokens": 100, "cache_read_tokens": 10, "cache_write_tokens": 20, "output_tokens": 50}
        for api, model, cost in (
            ("house", "llama-free", 0.0),
            ("house", "llama", 400e-6),
            ("openai", "gpt-4o", (70 + 60 + 50) / 1e6),
        ):
            self.assertAlmostEqual(prices.cost(api, "openai", model, "", units, NOW) or 0.0, cost, 12)
        self.assertIsNone(prices.cost("elsewhere", "", "llama", "", units, NOW))

    def test_the_closest_of_your_own_prices(self) -> None:
        """A name before any glob, the glob that says more before the one that says less, wherever they stand."""
        entries = [
            OwnPrice("*", "*", 1.0),
            OwnPrice("*", "gpt-*", 2.0),
            OwnPrice("openai", "gpt-*", 3.0),
            OwnPrice("*", "gpt-4o-mini*", 4.0),
            OwnPrice("*", "gpt-4o", 5.0),
        ]
        units = {"input_tokens": 1_000_000}
        for order in (entries, entries[::-1]):
            prices = Prices(order)
            for api, answered, asked, cost in (
                ("house", "llama", "", 1.0),
                ("house", "gpt-5", "", 2.0),
                ("openai", "gpt-5", "", 3.0),
                ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini", 4.0),
                ("openai", "gpt-4o-2024-08-06", "gpt-4o", 5.0),  # the name that was asked for
                ("openai", "gpt-4o", "gpt-4", 5.0),
            ):
                self.assertEqual(prices.cost(api, "openai", answered, asked, units, NOW), cost, (api, answered))

    def test_own_prices_of_other_units(self) -> None:
        """Sound, each request, searches; what they leave out costs as listed, or nobody knows what."""
        prices = Prices(
            [
                OwnPrice(
                    "*", "gpt-4.1", 1.0, 2.0, input_audio=10.0, output_audio=20.0, per_request=0.5, units={"maps": 3.0}
                )
            ]
        )
        units: dict[str, int | float] = {"input_tokens": 100, "input_audio_tokens": 60, "output_tokens": 30}
        units["output_audio_tokens"] = 10
        tokens = (40 * 1 + 60 * 10 + 20 * 2 + 10 * 20) / 1e6 + 0.5
        for more, cost in (({}, tokens), ({"maps": 2}, tokens + 6), ({"web_searches": 1}, tokens + 0.01)):
            found = prices.cost("a", "openai", "gpt-4.1", "", {**units, **more}, NOW)
            self.assertAlmostEqual(found or 0.0, cost, 12)
        self.assertIsNone(prices.cost("a", "openai", "gpt-4.1", "", {**units, "nobody_knows": 1}, NOW))
        self.assertIsNone(prices.cost("a", "", "gpt-4.1", "", {**units, "web_searches": 1}, NOW))

    def test_sound_that_was_cached_is_billed_once(self) -> None:
        """As what was cached, or as any sound where that has no price of its own."""
        units: dict[str, int | float] = {"input_tokens": 1000, "input_audio_tokens": 900, "cache_read_tokens": 600}
        for cached, more, cost in (
            (0.5, {"cache_audio_read_tokens": 600}, 100 * 2 + 300 * 40 + 600 * 0.5),
            (None, {"cache_audio_read_tokens": 600}, 100 * 2 + 900 * 40),
            (0.5, {"cache_audio_read_tokens": 550}, 50 * 2 + 350 * 40 + 600 * 0.5),
            (0.5, {}, 400 * 40 + 600 * 0.5),  # of the 600, no more than 100 were text
            (None, {}, 100 * 2 + 900 * 40),
            (0.5, {"cache_read_tokens": 0}, 100 * 2 + 900 * 40),
            (0.5, {"cache_audio_read_tokens": 5000}, 100 * 2 + 300 * 40 + 600 * 0.5),  # nobody can have
        ):
            prices = Prices([OwnPrice("*", "*", 2.0, 8.0, cached=cached, input_audio=40.0)])
            found = prices.cost("a", "google", "gemini-2.5-flash", "", {**units, **more}, NOW)
            self.assertAlmostEqual(found or 0.0, cost / 1e6, 12, (cached, more))

    def test_what_has_no_price_is_unknown(self) -> None:
        """Never cheaper: sound as text, an hour in the cache as minutes, a tier as the usual one."""
        units: dict[str, int | float] = {"input_tokens": 1000, "output_tokens": 10}
        for provider, model, more, terms in (
            ("openai", "gpt-4o", {"input_audio_tokens": 5}, Terms()),
            ("openai", "gpt-4o", {"code_executions": 1}, Terms()),
            ("openai", "gpt-3.5-turbo", {"web_searches": 1}, Terms()),
            ("openai", "gpt-3.5-turbo", {}, Terms("priority")),
            ("openai", "text-embedding-3-small", {}, Terms()),  # which makes no output
            ("anthropic", "claude-3-5-haiku-latest", {}, Terms(speed="fast")),
            ("anthropic", "claude-opus-4-8", {}, Terms(geo="elsewhere")),
        ):
            self.assertIsNone(self.prices.cost("a", provider, model, "", {**units, **more}, NOW, terms), (model, more))
            self.assertIsNotNone(
                self.prices.cost("a", provider, model, "", {"input_tokens": 1000}, NOW), "the model has a price"
            )

    def test_sound_of_google_costs_what_text_does(self) -> None:
        """Where its list has no other price for it; speech that is made is what the price of output is for."""
        units: dict[str, int | float] = {"input_tokens": 1000, "output_tokens": 10}
        for model in ("gemini-2.5-pro", "gemini-3.8-flash-tts"):
            plain = self.prices.cost("a", "google", model, "", units, NOW)
            heard = {**units, "input_audio_tokens": 500, "output_audio_tokens": 10}
            self.assertEqual(self.prices.cost("a", "google", model, "", heard, NOW), plain)

    def test_ten_seconds_at_least(self) -> None:
        """Groq's whisper."""
        short, long = (
            self.prices.cost("a", "groq", "whisper-large-v3", "", {"audio_seconds": size}, NOW) for size in (1, 10)
        )
        self.assertIsNotNone(long)
        self.assertEqual(short, long)

    def test_made_up_models(self) -> None:
        """Clients that make up models do not fill the memory."""
        for number in range(6000):
            self.assertIsNone(self.prices.cost("api", "openai", "", f"none-{number}", {"input_tokens": 1}, NOW))
        self.assertLess(len(self.prices._known), 5000)
