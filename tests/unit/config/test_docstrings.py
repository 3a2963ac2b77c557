"""Texts below attributes, out of the source."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.docstrings import attribute_docstrings
from llmproxy.config.model import Cache, Server
from llmproxy.config.types import Section


class Wider(Section):  # defined outside of the settings' modules
    given: int = 1
    """What is
    given."""
    bare: int = 2
    other: int = 3
    """Another."""


class DocstringTests(SynchronousTestCase):
    def test_of_settings(self) -> None:
        texts = attribute_docstrings(Server)
        self.assertIn("Processes that share the work", texts["workers"])
        self.assertEqual(texts.keys() - Server.model_fields.keys(), set())
        self.assertIn("max_bytes", attribute_docstrings(Cache))

    def test_a_class_elsewhere(self) -> None:
        """Only classes of the settings have such texts."""
        self.assertEqual(attribute_docstrings(Wider), {})
