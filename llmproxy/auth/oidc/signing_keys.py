"""The keys that an issuer signs with: cached, renewed in the background, and once more for a key that is not known."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.auth.oidc.issuer_client import IssuerClient, IssuerError
from llmproxy.base.background import Loop
from llmproxy.config.auth_settings import IdentityProviderSettings
from llmproxy.errors.identity import IdentityProviderUnavailable, TokenInvalid

MAX_KEYS = 100  # of one issuer; further ones are not looked at
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
MAX_WAITING = 1024  # requests that wait for keys
LOOK_SECONDS = 10.0  # how often it is looked whether keys are to be fetched
_PUBLIC = frozenset(("kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y"))


class SigningKeys:
    """Knows the keys of one issuer. No request fetches them; one with an unknown key id may cause it, now and then.

    @ivar fetches: How often they were fetched; C{failures}: how often that failed.
    """

    _log = Logger(namespace="llmproxy.oidc")

    def __init__(
        self,
        settings: IdentityProviderSettings,
        client: IssuerClient,
        clock: IReactorTime,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param changed: Called when a key that was there is not there any more.
        """
        self.fetches = 0
        self.failures = 0
        self._settings = settings
        self._client = client
        self._clock = clock
        self._changed = changed
        self._keys: list[Key] | None = None
        self._problem = "not fetched yet"
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = False
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self.renewal = Loop("oidc_keys", self._renew, min(LOOK_SECONDS, settings.jwks_refresh), clock)

    @property
    def count(self) -> int:
        """How many usable keys there are."""
        return len(self._keys or ())

    @property
    def age(self) -> float:
        """Seconds since they were fetched; C{0} where they never were."""
        return 0.0 if self._keys is None else self._clock.seconds() - self._fetched_at

    @property
    def state(self) -> str:
        """C{ok}, or why the keys could not be renewed."""
        return self._problem or "ok"

    async def find(self, kid: str | None, algorithm: str) -> Key:
        """The key with this id, fit for this algorithm; without an id the only one that is.

        L{TokenInvalid} where the issuer has none, L{IdentityProviderUnavailable} where that cannot be known.
        """
        key = self._pick(kid, algorithm)
        if key is None and (self._fetching or self._may_fetch()):
            await self._fetch()
            key = self._pick(kid, algorithm)
        if key is not None:
            return key
        if self._current() is None:
            raise IdentityProviderUnavailable(retry_after=1.0)
        raise TokenInvalid("This JWT is not signed with a key that its issuer publishes.")

    def _current(self) -> list[Key] | None:
        stale = self._settings.jwks_max_stale
        return None if stale and self.age > stale + self._settings.jwks_refresh else self._keys

    def _pick(self, kid: str | None, algorithm: str) -> Key | None:
        fit = [key for key in self._current() or () if (kid is None or key.kid == kid) and _fits(key, algorithm)]
        return fit[0] if len(fit) == 1 or (fit and kid is not None) else None

    def _may_fetch(self) -> bool:
        return self._clock.seconds() - self._tried_at >= self._settings.jwks_cooldown

    def _renew(self) -> Deferred[None] | None:
        """Fetch them where it is time to, or where it failed last."""
        due = self._clock.seconds() - self._fetched_at >= self._settings.jwks_refresh
        return self._fetch() if due or (self._problem and self._may_fetch()) else None

    def _fetch(self) -> Deferred[None]:
        """Wait with whoever waits already; the first begins."""
        if len(self._waiting) >= MAX_WAITING:
            raise IdentityProviderUnavailable(retry_after=1.0)
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if not self._fetching:
            self._fetching = True
            self._running = Deferred.fromCoroutine(self._fetched())
        return waiter

    def start(self) -> None:
        """Fetch them now, and again from time to time."""
        self.renewal.start(now=True)

    def stop(self) -> None:
        """Fetch nothing more; whoever waits hears that there is no key."""
        self.renewal.stop()
        if self._running is not None:
            self._running.cancel()

    async def _fetched(self) -> None:
        """Fetch, and let all go on who wait. Never raises."""
        self._tried_at = self._clock.seconds()
        try:
            url = self._settings.jwks_url or (await self._client.metadata()).jwks_uri
            self._take(list(usable_keys(await self._client.get(url))))
        except IssuerError as e:
            self.failures += 1
            if self._problem != e.message:
                self._log.warn(
                    "The keys of {issuer} could not be fetched: {problem}",
                    issuer=self._settings.issuer,
                    problem=e.message,
                )
            self._problem = e.message
        except CancelledError:  # the process ends
            pass
        finally:
            self._fetching = False
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def _take(self, keys: list[Key]) -> None:
        if not keys:
            raise IssuerError("The provider publishes no key that can be used.")
        before, self._keys = self._keys or [], keys
        self.fetches += 1
        self._fetched_at = self._clock.seconds()
        self._problem = ""
        if any(key not in keys for key in before):
            self._log.info("{issuer} has withdrawn a key.", issuer=self._settings.issuer)
            self._changed()


def usable_keys(document: dict[str, Any]) -> Iterator[Key]:
    """The public keys for signatures in a JWK set (RFC 7517, section 5); the others are left out."""
    listed = document.get("keys")
    for data in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(data, dict) or data.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if data.get("use", "sig") != "sig" or not _verifies(data.get("key_ops")):
            continue
        try:
            if data["kty"] != "RSA" or _bits(data["n"]) >= MIN_RSA_BITS:
                yield JWKRegistry.import_key({name: value for name, value in data.items() if name in _PUBLIC})
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue


def _bits(number: str) -> int:
    """Of a number in base64url (RFC 7518, section 2); joserfc only warns of keys that are too short."""
    return int.from_bytes(urlsafe_b64decode(number + "=" * (-len(number) % 4)), "big").bit_length()


def _verifies(key_ops: Any) -> bool:
    return key_ops is None or (isinstance(key_ops, list) and "verify" in key_ops)


def _fits(key: Key, algorithm: str) -> bool:
    """Whether signatures of this algorithm can be made with it: a key has one use only (RFC 8725, section 3.1)."""
    if key.alg not in (None, algorithm) or not isinstance(key, RSAKey | ECKey | OKPKey):
        return False
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except (JoseError, ValueError):
        return False
    return True
