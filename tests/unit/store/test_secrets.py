"""Secrets that make themselves, and stay private."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from unittest import TestCase

from llmproxy.store.errors import UnsafeSecret
from llmproxy.store.secrets import load_or_make, replace_secret
from tests.support.small_disk import fill, small_disk


class SecretTests(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.state = Path(directory.name) / "data"

    def written(self, content: str, mode: int = 0o600) -> Path:
        self.state.mkdir(mode=0o700)
        path = self.state / "key"
        path.write_text(content)
        path.chmod(mode)
        return path

    def test_the_first_start_makes_it(self) -> None:
        secret = load_or_make(self.state, None, "key", os.urandom)
        self.assertTrue(secret.made)
        self.assertEqual(secret.path, self.state / "key")
        self.assertEqual(len(secret.value), 43)
        self.assertEqual(stat.S_IMODE((self.state / "key").stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        self.assertEqual(os.listdir(self.state), ["key"])

    def test_every_later_start_finds_it(self) -> None:
        made = load_or_make(self.state, None, "key", os.urandom)
        found = load_or_make(self.state, "", "key", os.urandom)
        self.assertEqual((found.value, found.path, found.made), (made.value, made.path, False))

    def test_two_names_are_two_secrets(self) -> None:
        self.assertNotEqual(
            load_or_make(self.state, None, "a", os.urandom).value, load_or_make(self.state, None, "b", os.urandom).value
        )

    def test_given_ones_are_not_written(self) -> None:
        secret = load_or_make(self.state, "given\n", "key", os.urandom)
        self.assertEqual((secret.value, secret.path, secret.made), ("given", None, False))
        self.assertFalse(self.state.exists())

    def test_is_not_shown(self) -> None:
        self.assertNotIn("given", repr(load_or_make(self.state, "given", "key", os.urandom)))

    def test_full_disk(self) -> None:
        """Nothing of a secret that cannot be written stays behind."""
        disk = self.state.with_name("disk")
        with small_disk(disk, "1m"):
            load_or_make(disk, None, "key", os.urandom)
            fill(disk)
            before = sorted(os.listdir(disk))
            with self.assertRaises(OSError):
                replace_secret(disk / "key", "another")
            with self.assertRaisesRegex(UnsafeSecret, "No space left"):
                load_or_make(disk, None, "second", os.urandom)
            self.assertEqual(sorted(os.listdir(disk)), before)

    def test_readable_by_others(self) -> None:
        for mode in (0o640, 0o604, 0o620):
            with self.subTest(oct(mode)):
                path = self.written("secret", mode)
                with self.assertRaisesRegex(UnsafeSecret, "chmod 600"):
                    load_or_make(self.state, None, "key", os.urandom)
                path.unlink()
                self.state.rmdir()

    def test_empty(self) -> None:
        """A new key in its place would make the database unreadable, so somebody has to look."""
        self.written(" \n")
        with self.assertRaisesRegex(UnsafeSecret, "empty"):
            load_or_make(self.state, None, "key", os.urandom)

    def test_a_link(self) -> None:
        self.written("secret").rename(self.state / "elsewhere")
        (self.state / "key").symlink_to("elsewhere")
        with self.assertRaises(UnsafeSecret):
            load_or_make(self.state, None, "key", os.urandom)

    def test_a_pipe(self) -> None:
        """It is refused and not waited for."""
        self.state.mkdir()
        os.mkfifo(self.state / "key", 0o600)
        with self.assertRaisesRegex(UnsafeSecret, "plain file"):
            load_or_make(self.state, None, "key", os.urandom)

    def test_a_directory_that_is_a_file(self) -> None:
        self.state.write_text("")
        with self.assertRaises(UnsafeSecret):
            load_or_make(self.state, None, "key", os.urandom)

    def test_two_first_starts_at_once(self) -> None:
        """Whoever comes second uses the secret of whoever came first."""
        other: list[str] = []

        def random(count: int) -> bytes:
            if not other:
                other.append("")
                other[0] = load_or_make(self.state, None, "key", os.urandom).value
            return os.urandom(count)

        secret = load_or_make(self.state, None, "key", random)
        self.assertEqual((secret.value, secret.made), (other[0], False))
        self.assertEqual(os.listdir(self.state), ["key"])
