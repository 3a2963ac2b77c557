"""Measures the answers of the configured APIs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproxy.base.memo import BoundedMemo
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Price, Settings
from llmproxy.metering.dialects.operation import READ_OPERATION, ProviderOperation
from llmproxy.metering.dialects.registry import operation
from llmproxy.metering.meter import Dialect, dialect
from llmproxy.metering.price_list import get_snapshot
from llmproxy.metering.prices import OwnPrice, Prices

MAX_REMEMBERED_PATHS = 4096
MAX_REMEMBERED_PATH_BYTES = 512  # a longer one is read anew each time

# The providers of the settings by their names in genai-prices.
_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "mistral": "mistral",
    "azure": "azure",
    "bedrock-bearer": "aws",
}


class Operations:
    """Says what the requests to each endpoint do: what bounds their output, and what they bill beside tokens."""

    def __init__(self, settings: Settings) -> None:
        self._providers: dict[str, str] = {}
        self._known: BoundedMemo[tuple[str, bytes], ProviderOperation] = BoundedMemo(MAX_REMEMBERED_PATHS)
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Follow these settings from now on; APIs that are gone stay known to requests under way."""
        self._providers |= {name: provider(api) for name, api in settings.apis.items()}
        self._known.clear()

    def operation(self, method: bytes, api: str, path: bytes) -> ProviderOperation:
        """What a request does; L{UNKNOWN} where nobody knows."""
        if method != b"POST":
            return READ_OPERATION
        key = (api, path)
        found = self._known.get(key)
        if found is None:
            found = operation(self._providers[api], path)
            if len(path) <= MAX_REMEMBERED_PATH_BYTES:
                self._known[key] = found
        return found


class Meters:
    """Says how the answers of each endpoint are measured."""

    def __init__(self, settings: Settings) -> None:
        self._dialects: BoundedMemo[tuple[str, bytes], Dialect | None] = BoundedMemo(MAX_REMEMBERED_PATHS)
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Follow these settings from now on: prices, and which APIs are metered."""
        self._prices = Prices(own_prices(settings.prices))
        self._providers = {name: provider(api) for name, api in settings.apis.items() if api.metering.enabled}
        self._dialects.clear()

    def dialect(self, method: bytes, api: str, path: bytes) -> Dialect | None:
        """How responses are measured that an API gives at this path; C{None} where they are not.

        Only POST uses anything: what else shows a usage, shows that of an earlier request once more.
        """
        if method != b"POST" or path.endswith(b"/cancel"):
            return None
        key = (api, path)
        try:
            return self._dialects[key]
        except KeyError:
            pass
        known = self._providers.get(api)
        found = None if known is None else dialect(api, known, self._prices, path)
        if len(path) <= MAX_REMEMBERED_PATH_BYTES:
            self._dialects[key] = found
        return found


def own_prices(prices: Iterable[Price]) -> list[OwnPrice]:
    """The prices of the settings."""
    return [
        OwnPrice(
            p.api,
            p.model,
            p.input,
            p.output,
            p.cached,
            p.cache_write,
            p.input_audio,
            p.output_audio,
            p.per_request,
            dict(p.units),
        )
        for p in prices
    ]


def provider(api: Api) -> str:
    """The provider's name in genai-prices, by what the settings call it or by where it is; C{""} for one unknown."""
    known = _PROVIDERS.get(api.provider)
    if known is not None:
        return known
    return next((each.id for each in get_snapshot().providers if re.match(each.api_pattern, api.base_url)), "")
