"""What holds in the end, and where it comes from."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path

from llmproxy.config.effective import EffectiveSetting, effective
from llmproxy.config.fields import leaves
from llmproxy.config.problems import SettingsError

SETTINGS = """\
apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints: [/v1/models]
    timeouts: {connect: 5s}
    upstreams: [{base_url: "https://api.openai.com"}]
auth:
  oidc: {profiles: {openai: {concurrency: 2}}}
  validators: [{type: mine, shared_secret: whsec-3}]
redis:
  url: rediss://worker:r3d1s@cache.example.com/0
prices:
  - {model: "gpt-*", input: 1.5}
events:
  sinks:
    - type: webhook
      url: https://hooks.example.com/?api_key=hook1&team=a
      signing_secret: whsec-1
      headers: {authorization: "Bearer whsec-2", x-team: a}
      channel: ${CHANNEL}
      backups: ["https://b:p4ss@example.com"]
secrets:
  stores:
    - {type: vault, token: vault-token, role: "${CHANNEL}"}
"""
SECRETS = ("r3d1s", "hook1", "whsec-1", "whsec-2", "whsec-3", "p4ss", "chan-secret", "dbpw", "vault-token")


class EffectiveTests(unittest.TestCase):
    def read(self, environ: Mapping[str, str], text: str = SETTINGS) -> dict[str, EffectiveSetting]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "a.yaml"
            path.write_text(text)
            self.file = str(path)
            return {each.path: each for each in effective(self.file, {"CHANNEL": "chan-secret", **environ})}

    def test_sources(self) -> None:
        """The file's line, the variable, or the default; an empty key is none."""
        found = self.read({"LLMPROXY_SERVER_MAX_HEAD_BYTES": "32KiB", "HTTP_CACHE_ENABLED": "false"})
        for path, value, source in (
            ("apis.openai.timeouts.connect", "5s", f"{self.file}:5"),
            ("apis.openai.timeouts.idle", "120s", "default"),
            ("apis.openai.auth", "", "default"),
            ("apis.openai.allowed_endpoints", ["/v1/models"], f"{self.file}:4"),
            ("server.max_head_bytes", "32KiB", "LLMPROXY_SERVER_MAX_HEAD_BYTES"),
            ("cache.enabled", False, "HTTP_CACHE_ENABLED"),
            ("default_api", "openai", "default"),
            ("prices[0].input", 1.5, f"{self.file}:13"),
            ("events.sinks[0].type", "webhook", f"{self.file}:16"),
        ):
            with self.subTest(path):
                self.assertEqual((found[path].value, found[path].source), (value, source))

    def test_complete(self) -> None:
        """No setting is left out."""
        found = self.read({})
        for leaf in leaves():
            path = ".".join("openai" if step == "<name>" else str(step) for step in leaf.path).replace(".0", "[0]")
            self.assertIn(path, found)

    def test_masked(self) -> None:
        """No password, key or variable of a plugin's is shown, and all else is."""
        found = self.read({"LLMPROXY_STORE_URL": "postgresql+psycopg://u:dbpw@h/db?sslmode=require&sslpassword=dbpw"})
        text = repr(found)
        for secret in SECRETS:
            self.assertNotIn(secret, text)
        self.assertEqual(found["redis.url"].value, "rediss://***@cache.example.com/0")
        self.assertEqual(found["store.url"].value, "postgresql+psycopg://***@h/db?sslmode=***&sslpassword=***")
        self.assertEqual(found["events.sinks[0].url"].value, "https://hooks.example.com/?api_key=***&team=***")
        self.assertEqual(found["events.sinks[0].headers"].value, {"authorization": "***", "x-team": "a"})
        self.assertEqual(found["events.sinks[0].channel"].value, "${CHANNEL}")
        self.assertEqual(found["events.sinks[0].signing_secret"].value, "***")

    def test_wrong(self) -> None:
        with self.assertRaises(SettingsError):
            self.read({}, SETTINGS.replace("base_url", "bsae_url"))
