"""Settles results that are told later than the answer to their request: background responses, batches.

Until somebody fetches one, what its request could use at most stays reserved, whatever becomes of this process. Whoever
fetches it first enters what it used; what is fetched again, here or elsewhere, is not charged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from llmproxy.config.routes import Route
from llmproxy.errors import ProxyError
from llmproxy.interfaces import ICounters
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.records import Deferral, Held
from llmproxy.metering.catalog import Meters
from llmproxy.metering.deferred import Announcement, Collection, Outcome, fetched_id
from llmproxy.model import RequestRecord
from llmproxy.proxy.context import Exchange
from llmproxy.wire.client.transport import Answer

MAX_PATHS = 4096  # of which it is remembered what they fetch


class ResultBooks(Protocol):
    """The ledger, as far as it keeps such results."""

    def announce(self, ledger_id: str, deferral: Deferral) -> None: ...
    def pending(self, project_id: str, api: str, result_id: str) -> Deferred[list[PendingResult]]: ...
    def rename(self, results: Sequence[PendingResult], result_id: str) -> Deferred[None]: ...
    def collect(
        self, results: Sequence[PendingResult], ledger_id: str, record: RequestRecord
    ) -> Deferred[Mapping[str, int] | None]: ...


class DeferredResults:
    """Watches answers for them."""

    _log = Logger()

    def __init__(self, books: ResultBooks, meters: Meters, counters: ICounters, now: Callable[[], float]) -> None:
        """
        @param now: Seconds since the epoch.
        """
        self._books = books
        self._meters = meters
        self._counters = counters
        self._now = now
        self._paths: dict[tuple[bytes, bytes], str] = {}

    def watch(self, exchange: Exchange, route: Route, answer: Answer) -> None:
        """An answer has begun; to be called before its body is taken."""
        dialect = exchange.dialect
        if dialect is not None:
            if (deferred := dialect.operation.deferred) is not None:
                exchange.announcement = Announcement(answer.lines, deferred, partial(self._announced, exchange))
                answer.watch(exchange.announcement.feed)
            return
        result_id = self._fetched(exchange.request.method, route.path)
        if result_id and self._meters.dialect(b"POST", route.api_name, b"/v1/responses") is not None:
            measuring = partial(self._meters.dialect, b"POST", route.api_name)
            exchange.result_id = result_id
            exchange.collection = Collection(route.path, answer.lines, measuring, self._now())
            answer.watch(exchange.collection.feed)

    def _announced(self, exchange: Exchange, result_id: str) -> None:
        """Keep it before its client can hear of it: from then on nothing that ends this process makes it forgotten."""
        if exchange.ledger_id:
            self._books.announce(exchange.ledger_id, Deferral(result_id, _held(exchange)))

    def _fetched(self, method: bytes, path: bytes) -> str:
        key = (method, path)
        known = self._paths.get(key)
        if known is None:
            if len(self._paths) >= MAX_PATHS:
                self._paths.clear()
            known = self._paths[key] = fetched_id(method, path)
        return known

    async def collect(self, exchange: Exchange, finished: float) -> None:
        """A request is over that may have fetched one: enter what that used, unless it has been. Never raises."""
        collection, complete = exchange.collection, exchange.outcome == "complete"
        if collection is None or exchange.grant is None or exchange.route is None:
            return
        try:
            if collection.outcome("", self._now(), complete=complete) is None:
                return
            found = await self._books.pending(exchange.grant.project_id, exchange.route.api_name, exchange.result_id)
            if not found:
                return
            outcome = collection.outcome(found[0].model, found[0].at, complete=complete)
            if outcome is not None:
                await self._settle(exchange, finished, found, outcome)
        except (ProxyError, CancelledError) as e:
            self._log.warn("A result could not be settled yet; it stays charged at its most: {error}", error=str(e))
        except Exception:
            self._log.failure("A result could not be settled; it stays charged at its most.")
        if not exchange.collected:
            exchange.result = None

    async def _settle(
        self, exchange: Exchange, finished: float, found: Sequence[PendingResult], outcome: Outcome
    ) -> None:
        if outcome.elsewhere:
            await self._books.rename(found, outcome.elsewhere)
        elif outcome.usage is not None:
            exchange.result = outcome.usage
            given = await self._books.collect(found, exchange.ledger_id, exchange.record(finished))
            if given is not None:
                exchange.collected = True
                ends = {held.key: held.ends for each in found for held in each.held}
                self._counters.corrected({key: (-less, ends[key]) for key, less in given.items()})


def deferral(exchange: Exchange) -> Deferral | None:
    """What the answer of a request that is over has announced, with what is reserved for it."""
    return Deferral(exchange.deferred_id, _held(exchange)) if exchange.deferred_id else None


def _held(exchange: Exchange) -> tuple[Held, ...]:
    reservation = exchange.reservation
    return () if reservation is None else tuple(Held(*each) for each in reservation.budgets)
