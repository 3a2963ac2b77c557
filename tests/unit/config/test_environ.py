"""L{llmproxy.config.environ}: variables above the file."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.config import environ as environment
from llmproxy.config.fields import leaves
from llmproxy.config.secret_variables import SECRETS


class Variables(TestCase):
    def test_every_name_means_one_setting(self) -> None:
        """Sections and keys never run into each other, nor into a secret."""
        found = [name for leaf in leaves() if (name := environment.variable(leaf))]
        self.assertEqual(len(found), len(set(found)))
        self.assertIn("LLMPROXY_STORE_URL", found)
        self.assertIn("LLMPROXY_STATE_DIR", found)
        for secret in SECRETS:
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
