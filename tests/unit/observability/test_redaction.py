"""Nothing secret leaves in a line of text."""

from __future__ import annotations

import json
import unittest
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.model import RequestRecord
from llmproxy.observability.redaction import HEAD_CHARACTERS, MASK, MIN_SECRET_CHARACTERS, Redactor

TOKEN = "sk-lp-" + "aB3_-" * 8 + "xyz"
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=MIN_SECRET_CHARACTERS, max_size=60)


class RedactorTests(unittest.TestCase):
    def test_known_secret(self) -> None:
        """A key that it was told of is masked, wherever it stands and however often."""
        redact = Redactor(["sk-proj-0123456789"]).redact
        self.assertEqual(redact("a=sk-proj-0123456789, sk-proj-0123456789!"), f"a={MASK}, {MASK}!")
        self.assertEqual(redact(b"\xffsk-proj-0123456789"), b"\xff" + MASK.encode())

    def test_nothing_secret(self) -> None:
        """Text without a secret comes back as the same object; half a key is no key."""
        text = "sk-proj-012345678 and bearer tokens"
        self.assertIs(Redactor(["sk-proj-0123456789"]).redact(text), text)

    def test_client_token(self) -> None:
        """A token of ours is masked though nobody told us of it, also where it was cut short."""
        redact = Redactor().redact
        self.assertEqual(redact(f"/v1/{TOKEN}/x"), f"/v1/{MASK}/x")
        self.assertEqual(redact(f"{TOKEN[:30]}\n"), f"{MASK}\n")
        self.assertEqual(redact("sk-lp-…"), "sk-lp-…")

    def test_bearer(self) -> None:
        """Whatever follows Bearer is masked, and only that; the word in a sentence is left alone."""
        redact = Redactor().redact
        for written in ("Bearer ", "bearer ", "BEARER\t", "Bearer%20", "bearer: "):
            self.assertEqual(redact(f'"{written}abcdefghijklmnop.q-r_s"'), f'"{written}{MASK}"')
        self.assertEqual(redact("Use Bearer auth, bearer of news."), "Use Bearer auth, bearer of news.")

    def test_bearer_of_a_known_secret(self) -> None:
        """A key with unusual characters is masked to its end, also behind Bearer."""
        redact = Redactor(["abcdefghijklmnop!rest", "sh!rt0"]).redact
        self.assertEqual(redact("Bearer abcdefghijklmnop!rest."), f"Bearer {MASK}.")
        self.assertEqual(redact("Bearer sh!rt0."), f"Bearer {MASK}.")

    def test_longest(self) -> None:
        """Where one key begins like another, the longer is masked whole."""
        self.assertEqual(Redactor(["sk-abcdef", "sk-abcdefghi"]).redact("sk-abcdefghi"), MASK)

    def test_what_was_clean_before(self) -> None:
        """Text that came by without a mask is looked at again once another secret is known, with few and with many."""
        redactor = Redactor()
        for number in range(200):
            text, version = f"id-{number}-secret", redactor.version
            for _ in range(3):
                self.assertIs(redactor.redact(text), text)
            redactor.add(text[1:])
            self.assertEqual(redactor.redact(text), f"i{MASK}")
            self.assertGreater(redactor.version, version)

    def test_hexadecimal(self) -> None:
        """Where no secret is of such digits and hyphens alone, nothing is masked in a text of these."""
        self.assertTrue(Redactor(["0123-abcdef"]).masks_hex)
        redactor = Redactor(["0123456789abcdefg", "ABCDEF12"], limit=1)
        redactor.add("sk-0123456789abcdef")
        self.assertFalse(redactor.masks_hex)
        redactor.add("0123456789abcdef")
        self.assertTrue(redactor.masks_hex)

    def test_too_short(self) -> None:
        """A value so short that it would garble every line is not masked."""
        redactor = Redactor(["info", ""])
        self.assertEqual(redactor.redact("info"), "info")

    def test_bounded(self) -> None:
        """It forgets the key that was added longest ago, but not one that was named again."""
        redactor = Redactor(limit=2)
        redactor.add("secret-one")
        redactor.add("secret-two")
        redactor.add("secret-one")
        redactor.add("other-three")
        self.assertEqual(redactor.redact("secret-one secret-two other-three"), f"{MASK} secret-two {MASK}")
        redactor.add("fourth-key")
        redactor.add("fifth-key")
        self.assertEqual(redactor.redact("secret-one"), "secret-one")
        self.assertEqual(redactor.redact("fourth-key"), MASK)

    def test_own_secrets(self) -> None:
        """What it was made with is masked for ever, however many keys are learnt later, and also where one of those
        is forgotten that is the same."""
        redactor = Redactor(["our-management-token", "our-encryption-key"], limit=100)
        redactor.add("our-management-token")
        for number in range(10_000):
            redactor.add(f"provider-key-{number:05d}")
        self.assertEqual(redactor.redact("our-management-token our-encryption-key"), f"{MASK} {MASK}")
        self.assertEqual(redactor.redact("provider-key-00001"), "provider-key-00001")
        self.assertEqual(redactor.redact("provider-key-09999"), MASK)

    def test_many_unlike_secrets(self) -> None:
        """Keys that have nothing in common are all masked."""
        secrets = [f"{i * 7919 % 99991:05d}-key-{i}" for i in range(500)]
        redactor = Redactor(secrets)
        self.assertEqual(redactor.redact(" ".join(secrets)), " ".join([MASK] * 500))

    def test_record(self) -> None:
        """A record is masked where a client could write into it, and otherwise the same object."""
        clean = RequestRecord("r1", 0.0, 0.1, "GET", "/v1/models", 200, "complete")
        redactor = Redactor(["hunter2-hunter2"])
        self.assertIs(redactor.record(clean), clean)
        dirty = RequestRecord("r1", 0.0, 0.1, "GET", f"/{TOKEN}", 404, "refused", user_agent="hunter2-hunter2")
        masked = redactor.record(dirty)
        self.assertEqual((masked.path, masked.user_agent, masked.status), (f"/{MASK}", MASK, 404))

    def test_a_record_like_one_that_was_clean(self) -> None:
        """Is looked at again once there is a new secret, and whatever its id is."""
        redactor = Redactor(["hunter2-hunter2"])
        record = RequestRecord("r1", 0.0, 0.1, "GET", "/v1/models", 200, "complete", user_agent="swordfish-1")
        for request_id, shown in (("r1", "r1"), ("hunter2-hunter2", MASK), ("r2", "r2")):
            self.assertEqual(redactor.record(record._replace(request_id=request_id)).request_id, shown)
        redactor.add("swordfish-1")
        self.assertEqual(redactor.record(record).user_agent, MASK)

    def test_records_without_end(self) -> None:
        """What is remembered of them stays within bounds."""
        redactor = Redactor()
        for number in range(3000):
            redactor.record(RequestRecord("r", 0.0, 0.1, "GET", f"/{number}", 200, "complete"))
        self.assertLessEqual(len(redactor._clean), 1024)

    @given(SECRETS, st.text(max_size=20), st.text(max_size=20))
    def test_every_form(self, secret: str, before: str, after: str) -> None:
        """Plain, in JSON, in a URL or as bytes: the secret is not to be found in the outcome."""
        redactor = Redactor([secret])
        for written in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
            masked = redactor.redact(f"{before}{written}{after}")
            self.assertEqual(masked.count(written), MASK.count(written) * masked.count(MASK))
        utf8 = secret.encode()
        if utf8.decode("latin-1") not in MASK:
            self.assertNotIn(utf8, redactor.redact(b"<" + utf8 + b">"))

    def test_heads(self) -> None:
        """What is looked for first is not longer than the shortest secret."""
        self.assertLessEqual(HEAD_CHARACTERS, MIN_SECRET_CHARACTERS)
