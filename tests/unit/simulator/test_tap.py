"""The options of C{twistd llmproxy-simulator}."""

from __future__ import annotations

from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.simulator.tap import DEFAULT, Options


class OptionsTests(SynchronousTestCase):
    def parse(self, *args: str) -> Options:
        options = Options()
        options.parseOptions(list(args))
        return options

    def test_without_options_it_listens_on_loopback(self) -> None:
        self.assertEqual(self.parse().endpoints, [DEFAULT])

    def test_listen_may_be_repeated(self) -> None:
        self.assertEqual(self.parse("--listen", "tcp:1", "--listen", "unix:/x").endpoints, ["tcp:1", "unix:/x"])

    def test_keys_come_from_options_and_files(self) -> None:
        path = Path(self.mktemp())
        path.write_text("mistral=sk-m\n")
        options = self.parse("--key", "openai=sk-o", "--keys", str(path))
        self.assertEqual(options.known, [("openai", "sk-o"), ("mistral", "sk-m")])

    def test_mistakes_are_told(self) -> None:
        for args in (("--key", "openai"), ("--keys", "/nowhere/at/all"), ("--sea",)):
            with self.subTest(args):
                self.assertRaises(UsageError, self.parse, *args)
