"""How tokens are validated and revoked, put together: the store's own, and those of others that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from llmproxy import plugins
from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.auth.change_feed import MAX_SILENCE, ChangeFeed
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.auth.revocation_file import RevocationFile
from llmproxy.auth.unknown_tokens import UnknownTokens
from llmproxy.auth.unwritten_revocations import CHANGE_SECONDS, UnwrittenRevocations
from llmproxy.auth.validator_chain import ForeignValidator, ValidatorChain
from llmproxy.base.coroutines import FairLock
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.config.model import Settings
from llmproxy.errors import StoreUnavailable
from llmproxy.interfaces import ITokenValidatorFactory, IWatchable
from llmproxy.model import Grant, Project
from llmproxy.store import projects, revoked_subjects
from llmproxy.store.revoked_subjects import RevokedSubjectTable
from llmproxy.store.store import Store


@dataclass(frozen=True)
class Tokens:
    """How tokens are validated and revoked.

    @ivar chain: Who validates tokens that this proxy has not issued, where the settings name anybody.
    @ivar lease: On what is cached of the store's tokens and provider keys; the feed renews it.
    @ivar changes: Held by whoever changes projects or tokens, so that no change undoes another.
    @ivar subjects: Those of other issuers whose tokens are refused.
    """

    validator: CachedTokenValidator
    failed_attempts: FailedAttempts
    unknown: UnknownTokens
    feed: ChangeFeed
    lease: CacheLease
    unwritten: UnwrittenRevocations
    changes: FairLock
    chain: ValidatorChain | None
    subjects: RevokedSubjectTable

    @property
    def parts(self) -> tuple[object, ...]:
        """Of it what is started, stopped and shown with the daemon."""
        foreign = () if self.chain is None else (self.chain, *(each.validator for each in self.chain.foreign))
        return (self.unknown, *foreign, self.validator, self.feed, self.unwritten)


def make_tokens(
    settings: Settings, reactor: Any, store: Store, now: Callable[[], float], random: Callable[[int], bytes]
) -> Tokens:
    """Make them.

    @raise ValueError: where the settings name a validator that nobody provides, or one that refuses its own settings.
    """

    def project(grant: Grant) -> Deferred[Project]:
        return store.read(partial(_project_of, grant=grant))  # not where management's lists wait

    failed_attempts, changes, subjects = FailedAttempts(), FairLock(), RevokedSubjectTable(store, now)
    lease = CacheLease(MAX_SILENCE)
    unknown = UnknownTokens(store.validate_tokens, failed_attempts, reactor)
    foreign = list(_foreign_validators(settings, reactor, now))
    chain = ValidatorChain(store, unknown, foreign, project, failed_attempts, reactor) if foreign else None
    validator = CachedTokenValidator(
        chain or store,
        unknown=chain or unknown,
        clock=reactor,
        now=now,
        ttl=settings.store.cache_seconds(announced=False),
        issued_ttl=settings.store.cache_seconds(announced=True),
        lease=lease,
        size=settings.store.token_cache_size,
        uses=None if settings.ledger.enabled else store,
        journaled=settings.ledger.enabled,
    )
    unwritten = UnwrittenRevocations(
        validator,
        {
            "token": store.deactivate_token,
            "tokens of project": store.revoke_project_tokens,
            "project": store.deactivate_project,
            "subject": subjects.revoke_all_of,
        },
        reactor,
        lambda: changes.within(CHANGE_SECONDS, reactor, StoreUnavailable()),
        file=RevocationFile(Path(settings.state_dir), random(8).hex()),
    )
    store.watch(validator.forget_project)
    for each in foreign:
        if IWatchable.providedBy(each.validator):
            IWatchable(each.validator).watch(validator.forget_project)
    feed = _change_feed(settings, reactor, store, lease)
    return Tokens(validator, failed_attempts, unknown, feed, lease, unwritten, changes, chain, subjects)


def _project_of(connection: Connection, grant: Grant) -> Project:
    """With one question to the store, so that no revocation comes between."""
    if grant.token_id:
        revoked_subjects.check(connection, grant.token_id, grant.issued_at)
    return projects.get(connection, grant.project_id)


def _foreign_validators(settings: Settings, reactor: Any, now: Callable[[], float]) -> Iterator[ForeignValidator]:
    """Those that the settings name, C{auth.oidc} first; each is made by its plugin."""
    auth = settings.auth
    named: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = []
    if auth.oidc.issuer:  # its C{apis} are in what it grants
        named.append(("auth.oidc", "oidc", auth.oidc.model_dump(mode="json"), ()))
    named += [(f"auth.validators[{n}]", each.type, each.options, each.apis) for n, each in enumerate(auth.validators)]
    for where, name, options, apis in named:
        factory = plugins.find(ITokenValidatorFactory, name)
        try:
            validator = factory.validator(options, reactor, now)
        except (ValueError, OSError) as e:
            raise ValueError(f"{where}: {e}") from e
        yield ForeignValidator(validator, apis)


def _change_feed(settings: Settings, reactor: Any, store: Store, lease: CacheLease) -> ChangeFeed:
    """Through Redis too where it is used anyhow."""
    limits, cache = settings.limits.backend == "redis", settings.cache.enabled and settings.cache.backend == "redis"
    url = settings.limits.redis_url if limits else settings.cache.redis_url
    redis = None
    if limits or cache:
        from llmproxy.redis import connect  # not before: most daemons have no Redis

        redis = connect(settings.redis, reactor, url=url, connections=1, use="revocation")
    return ChangeFeed(store, reactor, redis=redis, channel=f"{settings.redis.key_prefix}changes", lease=lease)
