"""L{llmproxy.config.secret_variables}."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from unittest import TestCase

from llmproxy.config import secret_variables
from llmproxy.config.load import read_private
from llmproxy.config.problems import SettingsError


class Secrets(TestCase):
    def secret(self, environ: Mapping[str, str], mode: int = 0o100600, text: str = "from file\n") -> str | None:
        def read(path: str) -> tuple[int, str]:
            if path == "/missing":
                raise FileNotFoundError(2, "No such file or directory")
            if path == "/binary":
                b"\xff".decode("utf-8")
            return mode, text

        return secret_variables.secret(environ, "ENCRYPTION_KEY", read)

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
            self.assertEqual(secret_variables.secret({"X_FILE": file.name}, "X", read_private), "secret")
            os.chmod(file.name, 0o644)
            with self.assertRaises(SettingsError):
                secret_variables.secret({"X_FILE": file.name}, "X", read_private)
