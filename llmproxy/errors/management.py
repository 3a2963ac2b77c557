"""Refusals of those who manage; as all L{llmproxy.errors}."""

from __future__ import annotations

from llmproxy.errors import FieldProblem, Forbidden, ProxyError, StoreUnavailable


class RoleNotAllowed(Forbidden):
    """Whoever manages has signed in, and may not do this."""

    code = "role_not_allowed"
    message = "The role of this management key does not allow that."


class CrossSiteRequest(Forbidden):
    code = "cross_site_request"
    message = "This form was not sent by a page of this session. Load the page again, and send it from there."


class IdempotencyInProgress(ProxyError):
    status, code = 409, "idempotency_in_progress"
    message = "A request with this Idempotency-Key is being answered. Try again in a moment."


class IdempotencyKeyReused(ProxyError):
    status, code, retry = 422, "idempotency_key_reused", False
    message = "This Idempotency-Key was used for another request. Use a fresh one for each creation."
    problems = (FieldProblem(message, "header", "Idempotency-Key"),)


class PreconditionFailed(ProxyError):
    status, code, retry = 412, "precondition_failed", False
    message = "It has been changed since: If-Match does not name its ETag. Read it again, and then change it."


class RevocationNotStored(StoreUnavailable):
    """It counts in this process, and nowhere else yet."""

    code = "revocation_not_stored"
    message = (
        "In force here, not stored: this process refuses it from now on, and tries to store that until it can. Until "
        "then other processes do not know of it."
    )

    def __init__(self, message: str = "", *, reason: str = "no answer") -> None:
        super().__init__(message or f"{type(self).message} The store: {reason}.", reason=reason)


class CacheUnavailable(ProxyError):
    """A purge that is not known to be done, or not all of it."""

    status, code = 503, "cache_unavailable"
    message = "The cache could not be purged: stored responses may be left. Purge again."
