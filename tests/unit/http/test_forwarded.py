from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.field_lines import FieldLines
from llmproxy.http.forwarded import MAX_KEPT_BYTES, TrustedProxies

TRUSTED = TrustedProxies(("10.0.0.0/8", "::1"))


def client_address(remote: str, lines: list[bytes], trusted: TrustedProxies) -> str:
    """Asked twice, for it may be remembered."""
    found = [trusted.client(remote, FieldLines.of(lines)) for _ in range(2)]
    assert found[0] == found[1]
    return found[0]


class ClientAddress(TestCase):
    def test_nobody_is_trusted(self) -> None:
        """What a client writes about itself is not believed."""
        self.assertEqual(client_address("10.0.0.1", [b"X-Forwarded-For: 1.2.3.4"], TrustedProxies()), "10.0.0.1")

    def test_a_peer_that_is_not_trusted(self) -> None:
        self.assertEqual(client_address("192.0.2.1", [b"X-Forwarded-For: 1.2.3.4"], TRUSTED), "192.0.2.1")

    def test_the_first_that_is_not_trusted_from_the_end(self) -> None:
        """What stands before it was written by the client."""
        lines = [b"X-Forwarded-For: 6.6.6.6, 192.0.2.7", b"x-forwarded-for: 10.1.1.1"]
        self.assertEqual(client_address("10.0.0.1", lines, TRUSTED), "192.0.2.7")

    def test_nothing_is_said(self) -> None:
        self.assertEqual(client_address("10.0.0.1", [b"Host: x"], TRUSTED), "10.0.0.1")

    def test_all_are_trusted(self) -> None:
        self.assertEqual(client_address("::1", [b"X-Forwarded-For: 10.0.0.5"], TRUSTED), "10.0.0.5")

    def test_what_is_no_address(self) -> None:
        """Ends what can be believed."""
        lines = [b"X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.5"]
        self.assertEqual(client_address("10.0.0.1", lines, TRUSTED), "10.0.0.5")

    def test_as_much_as_anybody_says(self) -> None:
        """What is long is looked at each time, and not kept."""
        trusted = TrustedProxies(("10.0.0.0/8",))
        for number in range(100):
            said = b"192.0.2.%d" % number + b", 10.0.0.5" * (MAX_KEPT_BYTES // 10)
            self.assertEqual(client_address("10.0.0.1", [b"X-Forwarded-For: " + said], trusted), f"192.0.2.{number}")
        self.assertEqual(len(trusted._clients), 0)

    def test_a_unix_socket(self) -> None:
        self.assertEqual(client_address("unix", [b"X-Forwarded-For: 1.2.3.4"], TRUSTED), "unix")

    @given(st.binary())
    def test_anything(self, value: bytes) -> None:
        """Never raises, and never makes an untrusted peer anybody else."""
        client_address("10.0.0.1", [b"X-Forwarded-For: " + value], TRUSTED)
        self.assertEqual(client_address("192.0.2.1", [b"X-Forwarded-For: " + value], TRUSTED), "192.0.2.1")
