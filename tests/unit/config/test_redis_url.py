"""Redis URLs, and what of them may be shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.redis_url import RedisAddress, parse_redis_url


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for url, address in {
            "redis://localhost": RedisAddress(),
            "redis://:p%40ss@r.example:1/2": RedisAddress("r.example", 1, password="p@ss", database=2),
            "rediss://u:p@[::1]/15": RedisAddress("::1", tls=True, user="u", password="p", database=15),
            "unix:///run/redis.sock": RedisAddress(path="/run/redis.sock"),
            "unix://u:p@/run/redis%20a.sock?db=3": RedisAddress(
                path="/run/redis a.sock", user="u", password="p", database=3
            ),
        }.items():
            self.assertEqual(parse_redis_url(url), address, url)

    def test_refused(self) -> None:
        for url, reason in {
            "http://h": "must begin with",
            "redis://": "no host",
            "redis://h:0": "port",
            "redis://h/x": "database",
            "redis://h/-1": "database",
            "redis://h/٣": "database",
            "redis://user@h": "without a password",
            "redis://h/0?db=1": "query",
            "redis://h/0#f": "fragment",
            "unix://host/run/r.sock": "absolute",
            "unix:///": "absolute",
            "unix:///r.sock?timeout=1": "query",
        }.items():
            with self.assertRaises(ValueError) as caught:
                parse_redis_url(url)
            self.assertIn(reason, str(caught.exception), url)

    def test_shown_without_secrets(self) -> None:
        """A log line says which server it is, not how to be let in."""
        for url, shown in {
            "rediss://user:hunter2@[::1]:7/1": "rediss://[::1]:7/1",
            "redis://:hunter2@h": "redis://h:6379/0",
            "unix://:hunter2@/run/r.sock?db=1": "unix:///run/r.sock?db=1",
        }.items():
            address = parse_redis_url(url)
            self.assertEqual(str(address), shown)
            self.assertNotIn("hunter2", repr(address))

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """Whatever is given is taken apart or refused, and a refusal repeats nothing of the password."""
        for url in (text, f"redis://{text}", f"unix://{text}"):
            try:
                self.assertIsInstance(parse_redis_url(url), RedisAddress)
            except ValueError:
                pass
