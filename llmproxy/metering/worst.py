"""What a request can cost at most, before anybody knows what it will use."""

from __future__ import annotations

from collections.abc import Mapping

from genai_prices.data_snapshot import get_snapshot

from llmproxy.http.request_reader import RequestContent
from llmproxy.metering import estimating
from llmproxy.metering.prices import Prices

REMEMBERED = 4096  # models
USUAL = 100_000  # tokens of input up to which the price of so many is that of fewer, too
HELD = 60.0  # seconds for which a price is remembered: some change with the hour


class Worst:
    """Prices a bound: all input as what costs most, be it read anew or written to the provider's cache.

    @param providers: The providers' names in genai-prices, by the names of the APIs.
    """

    def __init__(self, prices: Prices, providers: Mapping[str, str]) -> None:
        self._prices = prices
        self._providers = providers
        get_snapshot()  # read now, so that no request waits for it
        self._rates: dict[tuple[str, str], tuple[float, tuple[float, float] | None]] = {}

    def input(self, api: str, model: str, content: RequestContent, size: int) -> int:
        """Tokens of input that a request is at most, as L{estimating} reckons: no more than the model can read.

        @param size: Bytes of its body.
        """
        return estimating.prompt(content, size, self._providers[api], model).most

    def cost(self, api: str, model: str, given: int, made: int, at: float) -> float | None:
        """USD at most for so many tokens of input and output; C{None} where no price is known."""
        if given > USUAL:
            return self._cost(api, model, given, made, at)
        until, rates = self._rates.get((api, model), (0.0, None))
        if at >= until:
            rates = self._rated(api, model, at)
            if len(self._rates) >= REMEMBERED:
                self._rates.clear()
            self._rates[api, model] = (at + HELD, rates)
        return None if rates is None else given * rates[0] + made * rates[1]

    def _rated(self, api: str, model: str, at: float) -> tuple[float, float] | None:
        """USD for a token of input and one of output, at most: long requests may be dearer by the token."""
        given, both = self._cost(api, model, USUAL, 0, at), self._cost(api, model, USUAL, USUAL, at)
        return None if given is None or both is None else (given / USUAL, (both - given) / USUAL)

    def _cost(self, api: str, model: str, given: int, made: int, at: float) -> float | None:
        plain = {"input_tokens": given, "output_tokens": made}
        provider = self._providers[api]
        costs = [
            self._prices.cost(api, provider, "", model, units, at)
            for units in (plain, {**plain, "cache_write_tokens": given})
        ]
        return max((cost for cost in costs if cost is not None), default=None)
