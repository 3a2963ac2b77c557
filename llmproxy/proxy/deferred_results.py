"""Settles results that are reported later than the response to their request: background responses, batches.

Until somebody fetches one, what its request could use at most stays reserved, whatever becomes of this process. Whoever
fetches it first enters what it used; what is fetched again, here or elsewhere, is not charged again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from llmproxy.config.routes import Route
from llmproxy.errors import ProxyError
from llmproxy.interfaces import ICounters
from llmproxy.ledger import Ledger
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.records import Deferral, HeldBudget
from llmproxy.metering.catalog import Meters
from llmproxy.metering.deferred import Announcement, Collection, ResultOutcome, fetched_id
from llmproxy.proxy.context import RequestContext
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.transport import Response

MAX_MEMOIZED_PATHS = 4096  # of which it is remembered what they fetch


class DeferredResults:
    """Reads responses for what they announce, and for results that were announced before."""

    _log = Logger()

    def __init__(
        self,
        ledger: Ledger,
        meters: Meters,
        counters: ICounters,
        now: Callable[[], float],
        buffers: Buffers | None = None,
    ) -> None:
        """
        @param buffers: Counts what is kept of responses until they are over.
        @param now: Seconds since the epoch.
        """
        self._ledger = ledger
        self._meters = meters
        self._counters = counters
        self._now = now
        self._buffers = buffers
        self._paths: dict[tuple[bytes, bytes], str] = {}

    def watch(self, context: RequestContext, route: Route, answer: Response) -> Announcement | Collection | None:
        """A response has begun: what its body is to be shown to, if anything."""
        dialect = context.dialect
        if dialect is not None:
            if (deferred := dialect.operation.deferred) is not None:
                context.announcement = Announcement(
                    answer.lines, deferred, partial(self._announced, context), self._buffers
                )
                return context.announcement
            return None
        result_id = self._fetched(context.request.method, route.path)
        if result_id and self._meters.dialect(b"POST", route.api_name, b"/v1/responses") is not None:
            measuring = partial(self._meters.dialect, b"POST", route.api_name)
            context.result_id = result_id
            context.result_collection = Collection(route.path, answer.lines, measuring, self._now(), self._buffers)
            return context.result_collection
        return None

    def _announced(self, context: RequestContext, result_id: str) -> None:
        """Keep it before its client can hear of it: from then on nothing that ends this process makes it forgotten."""
        if context.charge is not None and context.charge.ledger_id:
            self._ledger.announce(context.charge.ledger_id, Deferral(result_id, _held(context)))

    def _fetched(self, method: bytes, path: bytes) -> str:
        key = (method, path)
        known = self._paths.get(key)
        if known is None:
            if len(self._paths) >= MAX_MEMOIZED_PATHS:
                self._paths.clear()
            known = self._paths[key] = fetched_id(method, path)
        return known

    async def collect(self, context: RequestContext, finished: float) -> None:
        """A request is over that may have fetched one: enter what that used, unless it has been. Never raises."""
        collection, complete = context.result_collection, context.outcome == "complete"
        if collection is None:
            return
        try:
            if context.grant is None or context.route is None:
                return
            if collection.outcome("", self._now(), complete=complete) is None:
                return
            found = await self._ledger.pending(context.grant.project_id, context.route.api_name, context.result_id)
            if not found:
                return
            outcome = collection.outcome(found[0].model, found[0].at, complete=complete)
            if outcome is not None:
                await self._settle(context, finished, found, outcome)
        except (ProxyError, CancelledError) as e:
            self._log.warn("A result could not be settled yet; it stays charged at its most: {error}", error=str(e))
        except Exception:
            self._log.failure("A result could not be settled; it stays charged at its most.")
        finally:
            collection.close()
            if not context.result_recorded:
                context.result_usage = None

    async def _settle(
        self, context: RequestContext, finished: float, found: Sequence[PendingResult], outcome: ResultOutcome
    ) -> None:
        if outcome.elsewhere:
            await self._ledger.rename(found, outcome.elsewhere)
        elif outcome.usage is not None:
            context.result_usage = outcome.usage
            ledger_id = "" if context.charge is None else context.charge.ledger_id
            given = await self._ledger.collect(found, ledger_id, context.record(finished))
            if given is not None:
                context.result_recorded = True
                ends = {held.key: held.ends for each in found for held in each.held}
                self._counters.corrected({key: (-less, ends[key]) for key, less in given.items()})


def deferral(context: RequestContext) -> Deferral | None:
    """What the response of a request that is over has announced, with what is reserved for it."""
    return Deferral(context.announced_id, _held(context)) if context.announced_id else None


def _held(context: RequestContext) -> tuple[HeldBudget, ...]:
    reservation = None if context.charge is None else context.charge.reservation
    return () if reservation is None else tuple(HeldBudget(*each) for each in reservation.budgets)
