"""L{llmproxy.config.environ}: variables above the file, and secrets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from unittest import TestCase

from llmproxy.config import environ as environment
from llmproxy.config.fields import leaves
from llmproxy.config.load import read_private
from llmproxy.config.problems import SettingsError


class Variables(TestCase):
    def test_every_name_means_one_setting(self) -> None:
        """Sections and keys never run into each other, nor into a secret."""
        found = [name for leaf in leaves() if (name := environment.variable(leaf))]
        self.assertEqual(len(found), len(set(found)))
        self.assertIn("LLMPROXY_STORE_URL", found)
        self.assertIn("LLMPROXY_STATE_DIR", found)
        for secret in environment.SECRETS:
            self.assertNotIn(f"LLMPROXY_{secret}", found)

    def test_apis_and_sinks_are_the_files(self) -> None:
        """They have no variables."""
        found = {".".join(map(str, leaf.path)) for leaf in leaves() if not environment.variable(leaf)}
        lists = ("apis.", "events.sinks.", "prices.", "auth.validators.", "secrets.stores.", "auth.oidc.profiles.")
        mappings = {"attribution", "auth.oidc.require", "auth.oidc.projects"}
        self.assertEqual({path for path in found if not path.startswith(lists)}, mappings)

    def test_ours_come_last(self) -> None:
        """So that they weigh more."""
        environ = {"LLMPROXY_REDIS_URL": "redis://b", "REDIS_CACHE_URL": "redis://a", "LLMPROXY_NO_SUCH": "x"}
        found = [(path, str(value), place.file) for path, value, place in environment.settings(environ)]
        self.assertEqual(
            found,
            [
                (("redis", "url"), "redis://a", "REDIS_CACHE_URL"),
                (("redis", "url"), "redis://b", "LLMPROXY_REDIS_URL"),
            ],
        )


class Misspelt(TestCase):
    def test_what_sets_nothing(self) -> None:
        """Is said with what was meant; what the file uses, and what others read, is none of it."""
        environ = {
            "LLMPROXY_STORE_ULR": "x",
            "LLMPROXY_MANAGEMENT_TOKE": "secret",
            "LLMPROXY_AZURE": "x",
            "LLMPROXY_MINE": "x",
            "LLMPROXY_STORE_URL": "x",
            "LLMPROXY_ENCRYPTION_KEY_FILE": "x",
            "LLMPROXY_URL": "x",
            "OTHER": "x",
        }
        said = environment.unknown_variables(
            environ, "base_url: https://${LLMPROXY_AZURE}.example and ${LLMPROXY_MINE:-x}"
        )
        self.assertEqual(
            said,
            [
                "The variable LLMPROXY_MANAGEMENT_TOKE sets nothing (did you mean LLMPROXY_MANAGEMENT_TOKEN?).",
                "The variable LLMPROXY_STORE_ULR sets nothing (did you mean LLMPROXY_STORE_URL?).",
            ],
        )


class Secrets(TestCase):
    def secret(self, environ: Mapping[str, str], mode: int = 0o100600, text: str = "from file\n") -> str | None:
        def read(path: str) -> tuple[int, str]:
            if path == "/missing":
                raise FileNotFoundError(2, "No such file or directory")
            if path == "/binary":
                b"\xff".decode("utf-8")
            return mode, text

        return environment.secret(environ, "ENCRYPTION_KEY", read)

    def refused(self, environ: Mapping[str, str], mode: int = 0o100600, text: str = "x") -> str:
        with self.assertRaises(SettingsError) as raised:
            self.secret(environ, mode, text)
        return str(raised.exception)

    def test_the_first_that_is_set(self) -> None:
        """Ours before the short names, the value before the file."""
        environ = {
            "LLMPROXY_ENCRYPTION_KEY": "1",
            "LLMPROXY_ENCRYPTION_KEY_FILE": "/f",
            "ENCRYPTION_KEY": "3",
            "ENCRYPTION_KEY_FILE": "/f",
        }
        expected = iter(["1", "from file", "3", "from file", None])
        for name in [*environ]:
            self.assertEqual(self.secret(environ), next(expected))
            environ[name] = ""
        self.assertIsNone(self.secret(environ))

    def test_a_file_that_others_may_read(self) -> None:
        """Is refused, and it is said how to put that right."""
        environ = {"ENCRYPTION_KEY_FILE": "/f"}
        for mode in (0o100640, 0o100604, 0o100666, 0o100610):
            self.assertRegex(self.refused(environ, mode), r"^ENCRYPTION_KEY_FILE: /f is open to .*\(chmod 600 /f\)$")
        self.assertEqual(self.secret(environ, 0o100400), "from file")

    def test_files_that_hold_no_secret(self) -> None:
        """A wrong path never means that there is no secret."""
        self.assertIn("No such file", self.refused({"ENCRYPTION_KEY_FILE": "/missing"}))
        self.assertIn("not text", self.refused({"ENCRYPTION_KEY_FILE": "/binary"}))
        self.assertIn("is empty", self.refused({"ENCRYPTION_KEY_FILE": "/f"}, text=" \n"))

    def test_a_real_file(self) -> None:
        """The reader that the daemon uses tells mode and text."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("secret\n")
            file.flush()
            os.chmod(file.name, 0o600)
            self.assertEqual(environment.secret({"X_FILE": file.name}, "X", read_private), "secret")
            os.chmod(file.name, 0o644)
            with self.assertRaises(SettingsError):
                environment.secret({"X_FILE": file.name}, "X", read_private)
