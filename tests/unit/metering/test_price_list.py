"""L{llmproxy.metering.price_list}."""

from __future__ import annotations

import subprocess
import sys
from unittest import TestCase

PROGRAM = """
import sys
from llmproxy.metering.price_list import get_snapshot
assert not [name for name in sys.modules if name.partition(".")[0] in ("httpx", "httpx2")]
assert get_snapshot().providers
import genai_prices
print(genai_prices.UpdatePrices().request_timeout)
import httpx2, httpx2._client
assert isinstance(genai_prices.UpdatePrices().request_timeout, httpx2.Timeout)
"""


class PriceListTests(TestCase):
    def test_without_its_http_client(self) -> None:
        """Prices are there without it; whoever uses it, by itself or through the prices' package, finds it whole."""
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Timeout", done.stdout)
