from __future__ import annotations

import dataclasses
from typing import Any
from unittest import TestCase

from llmproxy.config.model import Settings
from llmproxy.library import ProxyConfig

WHERE: dict[str, Any] = {"target_base_url": "https://api.openai.com", "allowed_endpoints": ["/v1/chat/completions"]}


class Library(TestCase):
    def test_defaults(self) -> None:
        """Are those of the settings file."""
        got = ProxyConfig(**WHERE).settings()
        api = {
            "provider": "openai",
            "base_url": "https://api.openai.com",
            "allowed_endpoints": ["/v1/chat/completions"],
        }
        self.assertEqual(got, Settings.model_validate({"apis": {"default": api}}))

    def test_every_argument_is_used(self) -> None:
        """A changed one changes the settings: none is accepted and then ignored."""
        others: dict[str, Any] = {
            "target_base_url": "http://localhost:9000/base",
            "allowed_endpoints": ("/v1/models", "/v1/files/**"),
            "allowed_methods": ("GET",),
            "provider": "anthropic",
            "redis_cache_url": "redis://redis:6379/1",
            "redis_cache_key_prefix": "mine:",
        }
        usual = ProxyConfig(**WHERE).settings()
        for field in dataclasses.fields(ProxyConfig):
            default = field.default
            other = others.get(field.name)
            if other is None:
                assert isinstance(default, int | float), field.name
                other = not default if isinstance(default, bool) else default + 7
            with self.subTest(field.name):
                changed = ProxyConfig(**{**WHERE, field.name: other}).settings()
                self.assertNotEqual(changed, usual)

    def test_times_and_sizes(self) -> None:
        config = ProxyConfig(**WHERE, request_timeout=1, connect_timeout=2, idle_timeout=3.5, max_request_bytes=10)
        got = config.settings()
        timeouts = got.apis["default"].timeouts
        self.assertEqual((timeouts.request, timeouts.connect, timeouts.idle), (1.0, 2.0, 3.5))
        self.assertEqual(got.server.max_request_bytes, 10)

    def test_a_redis_cache(self) -> None:
        got = ProxyConfig(**WHERE, redis_cache_url="redis://redis:6379/1").settings()
        self.assertEqual((got.cache.backend, got.redis.url), ("redis", "redis://redis:6379/1"))
        self.assertEqual(ProxyConfig(**WHERE).settings().cache.backend, "memory")

    def test_what_cannot_be(self) -> None:
        """Is said at once, as a L{ValueError} that names it."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"target_base_url": "ftp://x"}, "base_url"),
            ({"allowed_endpoints": []}, "allowed_endpoints"),
            ({"allowed_endpoints": ["v1"]}, "allowed_endpoints"),
            ({"allowed_methods": ["FETCH"]}, "allowed_methods"),
            ({"request_timeout": -1}, "request"),
            ({"provider": "openapi"}, "provider"),
        ]
        for wrong, said in cases:
            with self.subTest(wrong), self.assertRaisesRegex(ValueError, said):
                ProxyConfig(**{**WHERE, **wrong}).settings()
