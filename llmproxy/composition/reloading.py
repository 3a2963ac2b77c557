"""Has a running process follow its settings: read again, checked, and taken over as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.base.peers import NoSupervisor, Peers
from llmproxy.base.url_masking import mask_urls
from llmproxy.config.changes import changes, combined
from llmproxy.config.effective import EffectiveSetting
from llmproxy.config.load import SettingsError
from llmproxy.config.model import Settings
from llmproxy.config.settings_file import SettingsFile
from llmproxy.errors import Draining, Invalid, ProxyError
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented
from llmproxy.store.errors import StartupError

_log = Logger()

RELOAD_SECONDS = 60.0  # for the supervisor to have all workers reload


class ReloadResult(NamedTuple):
    """What a reload has brought.

    @ivar changed: The settings that are other and in force now, by their paths; C{pending}: those that are other and
        need a restart; C{rolling}: those for which the workers are being replaced.
    @ivar workers: With several: their places, and what each has done.
    """

    changed: tuple[str, ...]
    pending: tuple[str, ...]
    rolling: tuple[str, ...] = ()
    workers: tuple[tuple[int, str], ...] = ()


class PreparedReload(NamedTuple):
    """One that can be made now.

    @ivar settings: Those that will be in force; C{digest}: tells apart what was read.
    @ivar follow: Has the process go on with them.
    """

    settings: Settings
    result: ReloadResult
    digest: str
    follow: Callable[[], object]


@implementer(IHealthChecked, IInstrumented)
class Reloader:
    """Reads the settings again when it is told to.

    @ivar settings: Those in force.
    @ivar reloads: How often that was done; C{failures}: how often it could not be.
    """

    def __init__(
        self,
        settings: Settings,
        source: SettingsFile | None,
        prepare: Callable[[Settings, Settings], Callable[[], object]],
        check: Callable[[Settings, Settings], object] = lambda now, wanted: None,
    ) -> None:
        """
        @param source: Where the settings are from; C{None}: they stay as they are.
        @param prepare: Makes what it takes to go on with the second settings instead of the first, and raises where
            that cannot be made; what it gives does go on with them.
        @param check: Raises where the second settings, which need a restart, would not let it start.
        """
        self.settings = settings
        self.reloads = 0
        self.failures = 0
        self._source = source
        self._prepare = prepare
        self._check = check
        self._has_failed = False
        self._pending: tuple[str, ...] = ()

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("settings_reloads", "Times the settings were read again and taken over.", lambda: self.reloads)
        yield Counter("settings_reload_failures", "Times they could not be, and stayed as they were.",
                      lambda: self.failures)  # fmt: skip

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("settings", lambda: self.state)

    @property
    def state(self) -> str:
        """C{ok}, or whether those in the file are in force; anybody may read it, so the log alone says why not."""
        if self._has_failed:
            return "not reloaded (see the log)"
        return f"needs a restart: {', '.join(self._pending)}" if self._pending else "ok"

    def reload(self) -> ReloadResult:
        """Read the settings, and follow them; L{Invalid} says what is wrong where nothing has changed."""
        return self.commit(self.prepare())

    def prepare(self) -> PreparedReload:
        """Read the settings, and make all that can fail; L{Invalid} says what is wrong. Nothing changes yet."""
        try:
            wanted = self.settings if self._source is None else self._source.load()
            self._check(self.settings, wanted)
            found = changes(self.settings, wanted)
            following = combined(self.settings, wanted)
            follow = self._prepare(self.settings, following)
        except Exception as e:
            self.failed(e)
            raise Invalid(f"Nothing was changed. {mask_urls(str(e))}") from e
        digest = sha256(repr(wanted).encode()).hexdigest()
        return PreparedReload(following, ReloadResult(found.followed, found.pending), digest, follow)

    def commit(self, prepared: PreparedReload) -> ReloadResult:
        """Follow them."""
        found = prepared.result
        prepared.follow()
        self.settings = prepared.settings
        self.reloads += 1
        self._has_failed, self._pending = False, found.pending
        _log.info(
            "Reloaded the settings: {changed} changed, {pending} need a restart.",
            changed=", ".join(found.changed) or "nothing",
            pending=", ".join(found.pending) or "none",
        )
        return found

    def effective(self) -> list[EffectiveSetting]:
        """What file, environment and command line say now, with the sources; L{Invalid} where that is wrong."""
        try:
            return [] if self._source is None else self._source.effective()
        except (SettingsError, OSError) as e:
            raise Invalid(str(e)) from e

    def failed(self, error: Exception) -> None:
        """Say why they are not in force, in the log; and that they are not, on the ready page and in a figure."""
        self.failures += 1
        self._has_failed = True
        if isinstance(error, SettingsError | StartupError | ValueError | OSError):
            _log.error("The settings were not reloaded, nothing has changed: {reason}", reason=mask_urls(str(error)))
        else:
            _log.failure("The settings were not reloaded, nothing has changed.")


class WorkersReloader:
    """Has all workers read their settings again, where there are several: all of them, or none.

    @ivar own: What this process follows its settings by.
    """

    def __init__(self, reloader: Reloader, peers: Peers) -> None:
        self.own = reloader
        self._peers = peers
        self._prepared: PreparedReload | None = None
        peers.register("reload.prepare", lambda body: self._prepare())
        peers.register("reload.commit", lambda body: self._commit())
        peers.register("reload.abandon", self._abandon)

    @deferred
    async def reload(self) -> ReloadResult:
        """Have it done; L{Invalid} says what is wrong where nothing has changed."""
        if self._peers.alone:
            return self.own.reload()
        try:
            found = await self._peers.supervisor("reload", None, RELOAD_SECONDS)
        except NoSupervisor as e:
            raise Draining(f"The supervisor does not answer: {e}") from e
        if found["problem"]:
            raise Invalid(found["problem"])
        workers = tuple((each["worker"], each["result"]) for each in found["workers"])
        return ReloadResult(tuple(found["changed"]), (), tuple(found["rolling"]), workers)

    @deferred
    async def on_signal(self) -> None:
        """As L{reload}; what is wrong is in the log."""
        try:
            await self.reload()
        except ProxyError:
            pass

    def _prepare(self) -> dict[str, Any]:
        self._prepared = None
        try:
            self._prepared = prepared = self.own.prepare()
        except Invalid as e:
            return {"problem": str(e)}
        return {"problem": "", "digest": prepared.digest, **prepared.result._asdict()}

    def _commit(self) -> str:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return "nothing was prepared"
        try:
            self.own.commit(prepared)
        except Exception as e:
            self.own.failed(e)
            return f"failed: {mask_urls(str(e))}"
        return "reloaded"

    def _abandon(self, reason: str) -> None:
        """Another one cannot follow the settings."""
        if self._prepared is not None:
            self._prepared = None
            self.own.failed(Invalid(reason))
