"""A name in the settings leads to the one plugin of that name."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

from twisted.plugin import pluginPackagePaths
from twisted.trial.unittest import SynchronousTestCase

import twisted.plugins
from llmproxy.interfaces import IEventSinkFactory
from llmproxy.observability.file_sink import FileSinkFactory
from llmproxy.plugins import find

OUTSIDER = """
    from zope.interface import implementer
    from twisted.plugin import IPlugin
    from llmproxy.interfaces import IEventSinkFactory

    @implementer(IPlugin, IEventSinkFactory)
    class Carrier:
        name = {name!r}

        def sink(self, settings, reactor):
            raise NotImplementedError

    carrier = Carrier()
"""


class FindTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A folder on the path in which an outsider may put plugins, as an installed package would."""
        root = Path(self.mktemp())
        self.folder = root / "twisted" / "plugins"
        self.folder.mkdir(parents=True)
        self.patch(sys, "path", [str(root.absolute()), *sys.path])
        self.patch(twisted.plugins, "__path__", [*pluginPackagePaths("twisted.plugins"), *twisted.plugins.__path__])

    def install(self, module: str, name: str) -> None:
        (self.folder / f"{module}.py").write_text(dedent(OUTSIDER.format(name=name)))
        self.addCleanup(sys.modules.pop, f"twisted.plugins.{module}", None)

    def test_outsider(self) -> None:
        """Another package's plugin is found by its name."""
        self.install("outsider_one", "pigeon")
        self.assertEqual(find(IEventSinkFactory, "pigeon").name, "pigeon")

    def test_built_in(self) -> None:
        """The file sink comes through the same door as an outsider's."""
        self.assertIsInstance(find(IEventSinkFactory, "file"), FileSinkFactory)

    def test_unknown(self) -> None:
        """A name that nobody provides is an error that says which names there are."""
        self.install("outsider_two", "parrot")
        with self.assertRaises(ValueError) as caught:
            find(IEventSinkFactory, "pidgeon")
        self.assertIn("'pidgeon'", str(caught.exception))
        self.assertIn("parrot", str(caught.exception))

    def test_twice(self) -> None:
        """Two plugins of one name are an error, not a matter of luck."""
        self.install("outsider_three", "owl")
        self.install("outsider_four", "owl")
        with self.assertRaises(ValueError) as caught:
            find(IEventSinkFactory, "owl")
        self.assertIn(
            "twisted.plugins.outsider_four.Carrier, twisted.plugins.outsider_three.Carrier", str(caught.exception)
        )
