"""Every refusal this proxy makes, with its HTTP status and its code.

Raise one where the fact is known; L{llmproxy.proxy.own_response.refuse} is the one place that turns it into HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from llmproxy.errors import challenges


class FieldProblem(NamedTuple):
    """What is wrong with one part of a request (RFC 9457, section 3).

    @ivar place: C{pointer}, C{parameter} or C{header}; C{name}: a JSON pointer into the body, as a URI's fragment, or
        the name of the other; both C{""} where the fault lies nowhere in the request.
    """

    detail: str
    place: str = ""
    name: str = ""


class ProxyError(Exception):
    """A refusal: what went wrong, and what to do about it, in a sentence that holds no secret.

    @cvar status: The HTTP status of the response.
    @cvar code: The stable, machine-readable name: C{X-LLMProxy-Error} and the body's C{code}.
    @cvar retry: C{False} where the same request cannot succeed later (sends C{X-Should-Retry: false}).
    @ivar retry_after: Seconds after which a retry may succeed, or C{None}.
    @ivar headers: Further response fields, such as C{Allow}.
    @cvar problems: What exactly is wrong with a management request.
    """

    status = 500
    code = "internal_error"
    retry = True
    message = "The proxy failed to handle this request."
    problems: Sequence[FieldProblem] = ()

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or type(self).message
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        super().__init__(self.message)


class BadRequest(ProxyError):
    status, code, retry = 400, "bad_request", False
    message = "The request is malformed."


class BadTarget(BadRequest):
    code = "bad_request_target"
    message = "The request target is not one that can be forwarded as it stands."


class BodyUnreadable(BadRequest):
    code = "invalid_body"
    message = "The request body could not be read."


class BodyTimeout(BadRequest):
    status, code = 408, "request_timeout"
    message = "The request body did not arrive in time."


class ParamNotAllowed(BadRequest):
    code = "param_not_allowed"
    message = "A request parameter has a value that this API does not allow."


class OriginRequired(BadRequest):
    code = "origin_required"
    message = "This API requires an Origin header."


class HeaderRequired(BadRequest):
    code = "header_required"
    message = "A header that this API requires is missing."


class Unauthorized(ProxyError):
    status, code, retry = 401, "unauthorized", False
    message = "The request is not authorized."
    challenge = challenges.MISSING

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after, headers={**self.challenge, **(headers or {})})


class MissingToken(Unauthorized):
    code = "missing_token"
    message = "No token. Send the one that this proxy issued as Authorization: Bearer sk-lp-…"


class InvalidToken(Unauthorized):
    """A credential that was sent, and is no good."""

    challenge = challenges.INVALID_TOKEN


class TokenNotFound(InvalidToken):
    code = "token_not_found"
    message = "This token is not known here."


class TokenInactive(InvalidToken):
    """A token that was revoked.

    @ivar token_id: Its id, and C{project_id} its project's; C{""} where that is not known.
    """

    code = "token_inactive"
    message = "This token has been deactivated."

    def __init__(self, message: str = "", *, token_id: str = "", project_id: str = "") -> None:
        super().__init__(message)
        self.token_id = token_id
        self.project_id = project_id


class TokenExpired(InvalidToken):
    code = "token_expired"
    message = "This token has expired."


class Forbidden(ProxyError):
    status, code, retry = 403, "forbidden", False
    message = "The request is not allowed."


class EndpointNotAllowed(Forbidden):
    code = "endpoint_not_allowed"
    message = "This endpoint is not on the API's list of allowed endpoints."


class ProjectInactive(Forbidden):
    code = "project_inactive"
    message = "The project of this token is inactive."


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"
    message = "This origin is not allowed to call this API."


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"
    message = "This token may not use the model that was asked for."


class ApiNotAllowed(Forbidden):
    code = "api_not_allowed"
    message = "This token may not use this API."


class AddressNotAllowed(Forbidden):
    code = "address_not_allowed"
    message = "This token may not be used from this address."


class NotFound(ProxyError):
    status, code, retry = 404, "not_found", False
    message = "There is nothing at this path."


class MethodNotAllowed(ProxyError):
    status, code, retry = 405, "method_not_allowed", False
    message = "This method is not allowed here."


class UpgradeRequired(ProxyError):
    """The client wants a WebSocket. C{Upgrade} in the response says what there is (RFC 9110, section 15.5.22)."""

    status, code, retry = 426, "upgrade_required", False
    message = 'This proxy carries no WebSocket. Ask over HTTP: a stream with "stream": true in a POST.'

    def __init__(self) -> None:
        super().__init__(headers={"Upgrade": "HTTP/1.1", "Connection": "Upgrade"})


class Conflict(ProxyError):
    status, code, retry = 409, "conflict", False
    message = "The change conflicts with what is stored."


class ChangedMeanwhile(Conflict):
    """Another process changed it between reading and writing."""

    message = "Another change came first. Read it again, and then change it."


class RequestTooLarge(ProxyError):
    status, code, retry = 413, "request_too_large", False
    message = "The request body is larger than this proxy accepts."


class Invalid(ProxyError):
    """A management request whose body or query is understood but wrong."""

    status, code, retry = 422, "invalid_request", False
    message = "The request is not valid."

    def __init__(self, message: str = "", problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def part(cls, place: str, name: str, detail: str) -> Self:
        """Where one part is wrong: a C{parameter}, a C{header}, or a C{pointer} to a member of the body."""
        return cls(f"{name}: {detail}", [FieldProblem(detail, place, f"#/{name}" if place == "pointer" else name)])


class QuotaExceeded(ProxyError):
    """The lifetime allowance of a token is used up; only an operator can change that."""

    status, code, retry = 429, "quota_exceeded", False
    message = "This token has used up the requests it was allowed."


class TooManyOpen(ProxyError):
    """The project has as many requests under way to one provider as it may have."""

    status, code = 429, "too_many_open_requests"
    message = "This project has too many requests in flight to this provider. Wait until some of them are finished."


class RateLimited(ProxyError):
    """More requests or tokens in a minute, or more requests at once, than a limit allows."""

    status, code = 429, "rate_limit_exceeded"
    message = "Too many requests. Try again in a moment."


class BudgetExceeded(ProxyError):
    """What is left of a budget does not cover what the request may cost at most."""

    status, code = 429, "budget_exceeded"
    message = "The budget is used up."


class PriceUnknown(Forbidden):
    code = "price_unknown"
    message = "No price is known for this model, so what it costs cannot be held against the budget."


class TooManyFailures(ProxyError):
    status, code = 429, "too_many_failures"
    message = "Too many failed attempts from this address. Wait a minute."


class NotInCache(ProxyError):
    status, code, retry = 504, "not_in_cache", False
    message = "The cache has no response to this request, and the request asks for no other (only-if-cached)."


class InternalError(ProxyError):
    pass


class UpstreamFailure(ProxyError):
    """The provider gave no response.

    @ivar nothing_sent: Whether not one byte of the request has left, and its body can still be sent: then sending it
        again is sending it once.
    @ivar reused: Whether a connection that had carried other requests was closed before the first byte of a response.
    @ivar queue_time: Seconds for which it waited for a connection, all of them being busy.
    """

    nothing_sent = False
    reused = False
    queue_time = 0.0


class UpstreamBusy(UpstreamFailure):
    """The fault is nobody's but ours: no connection to the provider is free, and enough requests wait for one."""

    status, code = 503, "upstream_busy"
    message = "All connections to the provider are in use, and too many requests wait for one."


class DescriptorsExhausted(UpstreamBusy):
    code = "descriptors_exhausted"
    message = "This proxy has no descriptors left for a connection to the provider. Try again."


class UpstreamUnreachable(UpstreamFailure):
    status, code = 502, "upstream_unreachable"
    message = "The provider could not be reached."


class UpstreamBroken(UpstreamFailure):
    """The provider answered something that is not HTTP, or broke off before the end of its head."""

    status, code = 502, "upstream_protocol_error"
    message = "The provider's response could not be understood."


class UpstreamErrorWithheld(ProxyError):
    """Stands in the provider's own error response, whose status it keeps."""

    status, code, retry = 502, "upstream_error_withheld", False
    message = (
        "The provider's error is in an encoding that this proxy cannot look into. It could repeat the provider's key, "
        "so it was left out; the status is the provider's."
    )

    def __init__(self, status: int = 502) -> None:
        super().__init__()
        self.status = status


class StoreUnavailable(ProxyError):
    status, code = 503, "store_unavailable"
    message = "The store did not answer. Try again."

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "no answer",
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param reason: Why, in a few words, as readiness says it.
        """
        super().__init__(message, retry_after=retry_after, headers=headers)
        self.reason = reason


class LimitsUnavailable(ProxyError):
    status, code = 503, "limits_unavailable"
    message = "The limits for this request could not be checked. Try again."


class AuditUnavailable(ProxyError):
    """An act that must be written down could not be; it may have been done."""

    status, code = 503, "audit_unavailable"
    message = "The audit log could not be written. Check whether the change was applied before you retry."


class UpstreamAuthError(ProxyError):
    """No key for this API is stored with the project, or the stored one cannot be opened."""

    status, code, retry = 503, "upstream_auth_error", False
    message = "The project has no usable key for this API."


class UpstreamDisabled(ProxyError):
    status, code = 503, "upstream_disabled"
    message = "An operator has taken the provider out of service here. Try again later."


class CircuitOpen(ProxyError):
    status, code = 503, "circuit_open"
    message = "The provider has failed repeatedly; requests to it are held back for a moment."


class BuffersFull(ProxyError):
    """So much is held in memory already that no further request can be taken."""

    status, code = 503, "buffers_full"
    message = "This proxy holds as much of other requests and responses in memory as it may. Try again in a moment."


class Draining(ProxyError):
    status, code = 503, "draining"
    message = "This process is shutting down."


class UpstreamTimeout(UpstreamFailure):
    """The provider was asked, may still be at work, and bills it: an SDK that asks again of itself is billed again."""

    status, code, retry = 504, "upstream_timeout", False
    message = "The provider did not answer in time."


class ClientGone(Exception):
    """The client left before its response was complete. Never becomes HTTP: nobody is there to read it."""
