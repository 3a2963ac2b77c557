"""Reads modules when they are first needed, in a thread, so that what the process does meanwhile goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

from llmproxy.base.own_threads import OwnThreads

T = TypeVar("T")


class LateImports:
    """Imports modules that most processes never need: each costs time at the start, and memory for good."""

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: Provides C{IReactorFromThreads}.
        """
        self._reactor = reactor
        self._imported: set[str] = set()

    async def load(self, modules: Sequence[str]) -> None:
        """Return when all of them are imported; whatever one of them raises is raised."""
        missing = [name for name in modules if name not in self._imported]
        if missing:
            await self.in_thread(lambda: [import_module(name) for name in missing])
            self._imported.update(missing)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What C{work} returns, which runs in a thread of its own that ends with it."""
        threads = OwnThreads(self._reactor, "late imports")
        try:
            return await threads.call(work)
        finally:
            threads.stop()
