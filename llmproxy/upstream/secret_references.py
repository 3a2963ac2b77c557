"""Provider keys that are kept elsewhere: read when they are needed, and again when they have changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.base.coroutines import deferred, within
from llmproxy.base.own_threads import OwnThreads
from llmproxy.base.secret_reference import SecretReference
from llmproxy.errors import ProxyError, UpstreamAuthError
from llmproxy.instruments import Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, IOpenable, ISecretSource
from llmproxy.upstream.secret_rules import FileStamp, SecretMissing, SecretRules, as_key

WATCH_SECONDS = 1.0  # between two looks at the files
READ_SECONDS = 5.0  # for which a secret is waited for
MISSING_SECONDS = 1.0  # for which one that is missing is not looked for again
MAX_REASON_CHARACTERS = 200
MAX_SHOWN = 3  # references that the ready page names


@dataclass(slots=True)
class _Reading:
    """What was last read of a reference.

    @ivar value: C{None} where it is missing; C{problem} then says why.
    @ivar expires: Until when that is used, monotonic; C{None}: until its file changes.
    """

    value: str | None
    problem: str = ""
    stamp: FileStamp | None = None
    expires: float | None = None


@implementer(IOpenable, IHealthChecked, IInstrumented)
class SecretReferences(MultiService):
    """Resolves references, says which of them cannot be, and tells when a file has changed.

    @ivar tasks: What goes on in the background.
    """

    _log = Logger()

    def __init__(
        self,
        rules: SecretRules,
        sources: Mapping[str, ISecretSource],
        environ: Mapping[str, str],
        reactor: Any,
        *,
        refresh: float,
        is_own: Callable[[str], bool],
        learn: Callable[[str], object],
    ) -> None:
        """
        @param sources: The plugins by the name that references begin with.
        @param refresh: Seconds for which a plugin's secret is used, and between two looks at all references.
        @param is_own: Whether this is a secret of this process itself, which goes to no provider.
        @param learn: Called with every secret, so that logs can leave it out.
        """
        MultiService.__init__(self)
        self.rules = rules
        self._sources = sources
        self._environ = environ
        self._clock = reactor
        self._refresh = refresh
        self._is_own = is_own
        self._learn = learn
        self._threads = OwnThreads(reactor, "secrets", size=2, waiting=100)
        self._readings: dict[str, _Reading] = {}
        self._listed: Callable[[], Awaitable[list[str]]] | None = None
        self._changed: Callable[[], object] = lambda: None
        self._next_check = 0.0
        self._stamps_before: Mapping[str, FileStamp | None] = {}
        watching = Loop("secrets", self._watch, WATCH_SECONDS, reactor)
        self._loop = watching
        self.tasks = (watching,)
        for source in sources.values():
            if IService.providedBy(source):
                IService(source).setServiceParent(self)

    def attach(self, listed: Callable[[], Awaitable[list[str]]], changed: Callable[[], object]) -> None:
        """
        @param listed: Fires with all references that provider keys are stored as.
        @param changed: Called when a secret is no longer what it was.
        """
        self._listed, self._changed = listed, changed

    def recheck(self) -> None:
        """References were set or removed: look at all of them soon."""
        self._next_check = 0.0

    @deferred
    async def stopService(self) -> None:
        self._loop.stop()
        await maybeDeferred(MultiService.stopService, self)
        await self._threads.stop()

    @deferred
    async def open(self) -> None:
        """Look at all references before the first request needs one."""
        await self._check_all()
        self._loop.start()

    # What it shows

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "secret_references_missing",
            "Provider keys' references that cannot be resolved.",
            lambda: float(len(self._missing())),
        )

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("secrets", self._state)

    def _state(self) -> str:
        missing = self._missing()
        if not missing:
            return "ok"
        shown = "; ".join(f"{name}: {problem}" for name, problem in missing[:MAX_SHOWN])
        return f"missing: {shown}" + (f" and {len(missing) - MAX_SHOWN} more" if len(missing) > MAX_SHOWN else "")

    def _missing(self) -> list[tuple[str, str]]:
        return sorted((name, each.problem) for name, each in self._readings.items() if each.value is None)

    # How a secret is had

    async def resolve(self, reference: SecretReference) -> str:
        """The secret; L{UpstreamAuthError} where it is missing or may not be had."""
        reading = self._readings.get(reference)
        if reading is None or (reading.expires is not None and reading.expires <= self._clock.seconds()):
            reading = await self._read(reference)
        if reading.value is None:
            raise UpstreamAuthError
        return reading.value

    async def _read(self, reference: str) -> _Reading:
        try:
            self.rules.check(reference)
            scheme, _, name = reference.partition(":")
            reading = await self._read_from(scheme, name)
            if self._is_own(reading.value or ""):
                raise SecretMissing("it is a secret of llmproxy itself")
        except (SecretMissing, ValueError) as e:
            reading = _Reading(None, str(e), expires=self._clock.seconds() + MISSING_SECONDS)
        if reading.value is not None:
            self._learn(reading.value)
        before = self._readings.get(reference)
        self._readings[reference] = reading
        self._report(reference, before, reading)
        if before is not None and before.value != reading.value:
            self._log.info("The provider key {reference} has changed.", reference=reference)
            self._changed()
        return reading

    async def _read_from(self, scheme: str, name: str) -> _Reading:
        if scheme == "env":
            return _Reading(self.rules.variable(name, self._environ))
        late = SecretMissing("it could not be had in time")
        try:
            if scheme == "file":
                value, stamp = await within(READ_SECONDS, self._clock, self._threads.call(self.rules.file, name), late)
                return _Reading(value, stamp=stamp)
            reading: Deferred[Any] = maybeDeferred(self._sources[scheme].read, name)
            value = await within(READ_SECONDS, self._clock, reading, late)
            if not isinstance(value, str):
                raise SecretMissing(f"{scheme} has returned no text")
            return _Reading(as_key(value), expires=self._clock.seconds() + self._refresh)
        except (SecretMissing, CancelledError):
            raise
        except Exception as e:
            told = e.message if isinstance(e, ProxyError) else str(e) or type(e).__name__
            raise SecretMissing(" ".join(told.split())[:MAX_REASON_CHARACTERS]) from e

    def _report(self, reference: str, before: _Reading | None, now: _Reading) -> None:
        """Once when it goes missing, once when it is there again."""
        if now.value is None and (before is None or before.problem != now.problem):
            self._log.error(
                "The provider key {reference} cannot be had: {problem}. Requests that need it get 503.",
                reference=reference,
                problem=now.problem,
            )
        elif now.value is not None and before is not None and before.value is None:
            self._log.info("The provider key {reference} is there again.", reference=reference)

    # What goes on in the background

    async def _watch(self) -> None:
        await self._drop_changed()
        if self._next_check <= self._clock.seconds():
            await self._check_all()

    async def _drop_changed(self) -> None:
        """Read again the files that are other now, gone, or there at last; not while somebody is still writing them."""
        files = {name: each.stamp for name, each in self._readings.items() if name.startswith("file:")}
        if not files:
            return
        stamps = await self._threads.call(self._stamps, files)
        for name, stamp in files.items():
            if stamps[name] != stamp and stamps[name] == self._stamps_before.get(name):
                await self._read(name)
        self._stamps_before = stamps

    def _stamps(self, names: Iterable[str]) -> dict[str, FileStamp | None]:
        return {name: self.rules.stamp(name.removeprefix("file:")) for name in names}

    async def _check_all(self) -> None:
        """Look at what is stored now: what is missing is known before a request needs it, what is gone is forgotten."""
        if self._listed is None:
            return
        self._next_check = self._clock.seconds() + self._refresh
        listed = set(await self._listed())
        for name in self._readings.keys() - listed:
            del self._readings[name]
        for name in sorted(listed):
            before = self._readings.get(name)
            if before is None or before.expires is not None:
                await self._read(name)
