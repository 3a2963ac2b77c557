"""Has a running process follow its settings: read again, checked, and taken over as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.config.changes import changes, combined
from llmproxy.config.effective import EffectiveSetting
from llmproxy.config.load import SettingsError
from llmproxy.config.model import Settings
from llmproxy.config.settings_file import SettingsFile
from llmproxy.errors import Invalid
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented

_log = Logger()

MAX_REASON_CHARACTERS = 300  # of what is wrong, on the ready page


class ReloadResult(NamedTuple):
    """What a reload has brought.

    @ivar changed: The settings that are other and in force now, by their paths; C{pending}: those that are other and
        need a restart.
    """

    changed: tuple[str, ...]
    pending: tuple[str, ...]


@implementer(IHealthChecked, IInstrumented)
class Reloader:
    """Reads the settings again when it is told to.

    @ivar settings: Those in force.
    @ivar reloads: How often that was done; C{failures}: how often it could not be.
    """

    def __init__(
        self, settings: Settings, source: SettingsFile | None, follow: Callable[[Settings, Settings], object]
    ) -> None:
        """
        @param source: Where the settings are from; C{None}: they stay as they are.
        @param follow: Has this process go on with the second settings instead of the first; it takes all of them, or
            raises and takes none.
        """
        self.settings = settings
        self.reloads = 0
        self.failures = 0
        self._source = source
        self._follow = follow
        self._problem = ""
        self._pending: tuple[str, ...] = ()

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("settings_reloads", "Times the settings were read again and taken over.", lambda: self.reloads)
        yield Counter("settings_reload_failures", "Times they could not be, and stayed as they were.",
                      lambda: self.failures)  # fmt: skip

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("settings", lambda: self.state)

    @property
    def state(self) -> str:
        """C{ok}, or why those in the file are not in force."""
        if self._problem:
            return f"not reloaded: {self._problem}"
        return f"needs a restart: {', '.join(self._pending)}" if self._pending else "ok"

    def reload(self) -> ReloadResult:
        """Read the settings, and follow them; L{Invalid} says what is wrong where nothing has changed."""
        try:
            wanted = self.settings if self._source is None else self._source.load()
            found = changes(self.settings, wanted)
            following = combined(self.settings, wanted)
            self._follow(self.settings, following)
        except Exception as e:
            self._failed(e)
            raise Invalid(f"Nothing was changed. {e}") from e
        self.settings = following
        self.reloads += 1
        self._problem, self._pending = "", found.pending
        _log.info(
            "Reloaded the settings: {changed} changed, {pending} need a restart.",
            changed=", ".join(found.followed) or "nothing",
            pending=", ".join(found.pending) or "none",
        )
        return ReloadResult(found.followed, found.pending)

    def effective(self) -> list[EffectiveSetting]:
        """What file, environment and command line say now, with the sources; L{Invalid} where that is wrong."""
        try:
            return [] if self._source is None else self._source.effective()
        except (SettingsError, OSError) as e:
            raise Invalid(str(e)) from e

    def on_signal(self) -> None:
        """As L{reload}; what is wrong is in the log and on the ready page."""
        try:
            self.reload()
        except Invalid:
            pass

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._problem = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
        if isinstance(error, SettingsError | ValueError | OSError):
            _log.error("The settings were not reloaded, nothing has changed: {reason}", reason=str(error))
        else:
            _log.failure("The settings were not reloaded, nothing has changed.")
