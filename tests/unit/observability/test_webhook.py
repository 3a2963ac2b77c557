"""How webhooks are signed; the rest is seen through the daemon: tests/integration/test_budget_alerts.py."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.observability.webhook import message, signature


class SignatureTests(TestCase):
    def test_as_the_specification_has_it(self) -> None:
        """The example of Standard Webhooks 1.0, "Signature scheme", which its libraries are tested with."""
        signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        self.assertEqual(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    def test_what_is_no_base64(self) -> None:
        """A secret that says that it is base64 and is not would sign with something else than the receiver has."""
        with self.assertRaisesRegex(ValueError, "no base64"):
            signature("whsec_!", "id", 1, b"")

    def test_message(self) -> None:
        """Compact JSON, of which what is signed is sent."""
        self.assertEqual(message("1", "a.b", "now", {"c": 1}).body, b'{"type":"a.b","timestamp":"now","data":{"c":1}}')
