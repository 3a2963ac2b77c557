"""L{llmproxy.config.reference}: no setting without a word about it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from unittest import TestCase

from llmproxy.config.docstrings import attribute_docstrings
from llmproxy.config.environ import ALIASES, variable
from llmproxy.config.fields import leaves
from llmproxy.config.problems import dotted
from llmproxy.config.reference import GENERATED_MARK, with_tables
from llmproxy.config.secret_variables import SECRETS

PAGE = (Path(__file__).parents[3] / "docs" / "settings.md").read_text("utf-8")


class Reference(TestCase):
    def test_the_page_is_up_to_date(self) -> None:
        """If this fails: C{python -m llmproxy.config.reference docs/settings.md}."""
        self.assertEqual(PAGE.count(GENERATED_MARK), 1)
        self.assertEqual(PAGE, with_tables(PAGE))

    def test_every_setting_says_what_it_is_for(self) -> None:
        """A text under the field in the model."""
        docstrings = cache(attribute_docstrings)  # of a model, for each of its settings
        for leaf in leaves():
            self.assertTrue(docstrings(leaf.model).get(str(leaf.path[-1])), dotted(leaf.path))
            self.assertTrue(leaf.model.__doc__, leaf.model)

    def test_every_variable_is_on_the_page(self) -> None:
        """Those of settings, those of other proxies, and secrets."""
        names = [name for leaf in leaves() if (name := variable(leaf))]
        for name in (*names, *ALIASES, *SECRETS, *(f"LLMPROXY_{secret}" for secret in SECRETS)):
            self.assertIn(f"`{name}`", PAGE)
