"""What a start would refuse, found before it."""

from __future__ import annotations

import unittest
from collections.abc import Mapping

from twisted.internet.testing import MemoryReactor

from llmproxy.config.load import parse
from llmproxy.config.model import Settings
from llmproxy.config.problems import dotted
from llmproxy.process.start_checks import require_startable, start_problems

API = "apis: {a: {base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/models]}}\n"
SSL = "ssl:443:privateKey=/nope:certKey=/nope"


def read(text: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    return parse(API + text, "a.yaml", environ or {})


class StartProblems(unittest.TestCase):
    def problems(self, text: str, *, files: bool = False) -> dict[str, str]:
        return {dotted(path): why for path, why in start_problems(read(text), MemoryReactor(), files=files)}

    def test_nothing(self) -> None:
        """Also where only the service manager has the sockets, and where any port will do, twice."""
        self.assertEqual(self.problems(""), {})
        self.assertEqual(self.problems("server: {listen: ['systemd:domain=INET:index=0', 'tcp:0', 'tcp:0']}"), {})
        self.assertEqual(self.problems("cache: {enabled: false, backend: memcached}"), {})

    def test_one_each(self) -> None:
        for text, path, why in (
            ("cache: {backend: x}", "cache.backend", "No plugin provides ICacheFactory as 'x'"),
            ("limits: {backend: x}", "limits.backend", "Known: memory, redis"),
            ("events: {sinks: [{type: file, path: a}, {type: x}]}", "events.sinks[1]", "Known: file"),
            ("events: {sinks: [{type: file}]}", "events.sinks[0]", "needs a path"),
            ("auth: {validators: [{type: oidc}]}", "auth.validators[0]", "issuer is missing"),
            ("secrets: {stores: [{type: x}]}", "secrets.stores[0]", "No plugin provides ISecretSourceFactory"),
            ("store: {url: 'sqlite://'}", "store.url", "must name a file for SQLite"),
            ("server: {listen: ['tpc:8081']}", "server.listen[0]", "Unknown endpoint type: 'tpc'"),
            ("server: {listen: ['haproxy:tpc:81']}", "server.listen[0]", "Unknown endpoint type: 'tpc'"),
            (f"server: {{listen: ['{SSL}']}}", "server.listen[0]", "/nope: No such file"),
            (
                "server: {listen: ['tcp:80'], metrics_listen: ['tcp:80']}",
                "server.metrics_listen[0]",
                "stands in server.listen[0]",
            ),
        ):
            with self.subTest(text):
                found = self.problems(text)
                self.assertEqual(list(found), [path])
                self.assertIn(why, found[path])

    def test_files(self) -> None:
        """Of others than listeners only where that is asked for: whoever checks settings may be another user."""
        text = "audit: {file: /dev/null/x}"
        self.assertEqual(self.problems(text), {})
        self.assertIn("/dev/null is no directory", self.problems(text, files=True)[""])


class RequireStartable(unittest.TestCase):
    def test_a_restart_that_would_fail(self) -> None:
        with self.assertRaisesRegex(
            ValueError, "^cache.backend: No plugin.*\nserver.listen.0.: It cannot listen on x:1"
        ):
            require_startable(read(), read("cache: {backend: y}\nserver: {listen: ['x:1']}"), MemoryReactor())

    def test_what_is_in_use(self) -> None:
        """A certificate that has gone since is another part's to find, and plugins make nothing."""
        now = read(f"server: {{listen: ['{SSL}']}}")
        require_startable(
            now, read(f"server: {{listen: ['{SSL}']}}\nevents: {{sinks: [{{type: file}}]}}"), MemoryReactor()
        )
