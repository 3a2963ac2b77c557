from __future__ import annotations

from unittest import TestCase

from llmproxy.http.origin import Origin, split_base_url


class OriginTests(TestCase):
    def test_base_urls(self) -> None:
        """The port stands in C{Host} only where it is not the scheme's own, an IPv6 address in brackets."""
        for url, origin, host, base in (
            ("https://api.openai.com", Origin("https", "api.openai.com", 443), b"api.openai.com", b""),
            ("https://API.OpenAI.com:443/", Origin("https", "api.openai.com", 443), b"api.openai.com", b""),
            ("http://x:443/v1", Origin("http", "x", 443), b"x:443", b"/v1"),
            ("http://127.0.0.1:9100", Origin("http", "127.0.0.1", 9100), b"127.0.0.1:9100", b""),
            ("http://[::1]:9100/a/b/", Origin("http", "::1", 9100), b"[::1]:9100", b"/a/b"),
        ):
            with self.subTest(url=url):
                self.assertEqual(split_base_url(url), (origin, base))
                self.assertEqual((origin.host_header, origin.url), (host, f"{origin.scheme}://".encode() + host))
