from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.secret_reference import SecretReference
from llmproxy.upstream.secret_rules import SecretMissing, SecretRules, as_key


class Rules(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.kept = self.home / "kept"
        self.kept.mkdir(parents=True)
        self.own = self.kept / "encryption-key"
        self.own.write_text("own-secret\n")
        self.rules = SecretRules(["*_API_KEY", "ONE"], [str(self.kept)], ["vault"], [str(self.own)])

    def refused(self, text: str) -> str:
        with self.assertRaises(ValueError) as caught:
            self.rules.reference(text)
        return str(caught.exception)

    def missing(self, name: str) -> str:
        with self.assertRaises(SecretMissing) as caught:
            self.rules.file(str(self.kept / name))
        return str(caught.exception)

    def test_keys(self) -> None:
        """What begins with the name of no store is a key, whatever is in it."""
        for key in ("sk-proj-abc", "a1b2:c3d4", "evn:OPENAI_API_KEY", "ENV:X", ":x", "https://x"):
            self.assertIsNone(self.rules.reference(key), key)

    def test_references(self) -> None:
        for text in ("env:OPENAI_API_KEY", "env:ONE", f"file:{self.kept}/a/b", "vault:team/x:y"):
            self.assertIsInstance(self.rules.reference(text), SecretReference)

    def test_variables_that_are_not_allowed(self) -> None:
        for name in (
            "PATH",
            "OPENAI_api_key",
            "TWO",
            "LLMPROXY_API_KEY",
            "ENCRYPTION_KEY",
            "MANAGEMENT_TOKEN_FILE",
            "A B",
        ):
            self.assertTrue(self.refused(f"env:{name}"), name)

    def test_ours_in_spite_of_the_settings(self) -> None:
        """C{*} allows all variables but llmproxy's own."""
        rules = SecretRules(["*"], [], [], [])
        self.assertTrue(rules.reference("env:PATH"))
        for name in ("LLMPROXY_ENCRYPTION_KEY", "ENCRYPTION_KEY", "MANAGEMENT_TOKEN", "LLMPROXY_STORE_URL"):
            with self.assertRaises(ValueError):
                rules.reference(f"env:{name}")

    def test_paths_that_are_not_allowed(self) -> None:
        for path in (
            "/etc/passwd",
            f"{self.kept}",
            f"{self.kept}/",
            f"{self.kept}-more/x",
            f"{self.kept}/../x",
            f"{self.kept}//x",
            f"{self.kept}/./x",
            "kept/x",
            "",
        ):
            self.assertTrue(self.refused(f"file:{path}"), path)

    def test_file(self) -> None:
        (self.kept / "a").write_text(" sk-a \n")
        value, stamp = self.rules.file(str(self.kept / "a"))
        self.assertEqual((value, stamp), ("sk-a", self.rules.stamp(str(self.kept / "a"))))
        (self.kept / "a").write_text("sk-a2")
        self.assertNotEqual(stamp, self.rules.stamp(str(self.kept / "a")))

    def test_mounted_secrets(self) -> None:
        """Kubernetes' way: links within the directory, of which one is replaced."""
        for version in ("1", "2"):
            (self.kept / f"..{version}").mkdir()
            (self.kept / f"..{version}" / "key").write_text(f"sk-{version}")
        (self.kept / "..data").symlink_to("..1")
        (self.kept / "key").symlink_to("..data/key")
        value, stamp = self.rules.file(str(self.kept / "key"))
        self.assertEqual(value, "sk-1")
        (self.kept / "..new").symlink_to("..2")
        os.replace(self.kept / "..new", self.kept / "..data")
        self.assertNotEqual(self.rules.stamp(str(self.kept / "key")), stamp)
        self.assertEqual(self.rules.file(str(self.kept / "key"))[0], "sk-2")

    def test_files_that_are_not_read(self) -> None:
        """Links out, own secrets (under another name too), directories, pipes, what is no key."""
        outside = self.home / "outside"
        outside.write_text("sk-outside")
        (self.kept / "out").symlink_to(outside)
        (self.kept / "own").symlink_to("encryption-key")
        (self.kept / "folder").mkdir()
        os.mkfifo(self.kept / "pipe")
        (self.kept / "lines").write_text("root:x:0\nbin:x:1\n")
        (self.kept / "long").write_text("x" * 5000)
        (self.kept / "empty").write_text("\n")
        self.assertIn("out of", self.missing("out"))
        self.assertIn("llmproxy itself", self.missing("own"))
        self.assertIn("llmproxy itself", self.missing("encryption-key"))
        self.assertIn("plain file", self.missing("folder"))
        self.assertIn("plain file", self.missing("pipe"))
        self.assertIn("one line", self.missing("lines"))
        self.assertIn("one line", self.missing("long"))
        self.assertIn("empty", self.missing("empty"))
        self.assertIn("not there", self.missing("nothing"))
        self.assertIsNone(self.rules.stamp(str(self.kept / "out")))

    def test_no_content_in_what_is_said(self) -> None:
        with self.assertRaises(SecretMissing) as caught:
            as_key("the secret\nof others")
        self.assertNotIn("the secret", str(caught.exception))
