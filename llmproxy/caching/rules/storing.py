"""Whether a response may be stored, what of it, and for how long it is fresh (RFC 9111, sections 3 and 4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmproxy.caching.rules import dates, directives
from llmproxy.caching.rules.directives import MAX_DELTA_SECONDS, NOTHING, Directives
from llmproxy.caching.rules.entry import Entry
from llmproxy.http import fields
from llmproxy.http.body_hints import is_event_stream
from llmproxy.http.field_lines import FieldLines

Scope = Literal["project", "token", "shared"]

# RFC 9110, section 15.1, without 206: those that may be kept by guess.
HEURISTIC = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
# Whose meaning for a cache is known here (must-understand); 206 and 304 are never kept by themselves.
UNDERSTOOD = HEURISTIC | frozenset(
    (302, 303, 307, 400, 401, 403, 406, 409, 411, 412, 413, 415, 416, 417, 421, 422, 426, 429, 500, 502, 503, 504, 505)
)
MAX_HEURISTIC_SECONDS = 86_400.0
CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"proxy-authorization"))

# What belongs to one exchange alone: who asked, under which id, how much they have left, over which connection.
_OF_ONE_EXCHANGE = frozenset(
    b"set-cookie set-cookie2 age x-request-id request-id x-upstream-request-id x-amzn-requestid apim-request-id "
    b"x-ms-request-id x-correlation-id cf-ray server-timing x-envoy-upstream-service-time openai-processing-ms "
    b"x-response-time x-runtime x-trace-id traceresponse retry-after retry-after-ms x-should-retry "
    b"cache-status x-cache x-cache-hits".split()
)
_OF_ONE_EXCHANGE_BEGIN = (b"x-ratelimit-", b"ratelimit", b"anthropic-ratelimit-", b"x-rate-limit-")


@dataclass(frozen=True, slots=True)
class StoringRules:
    """What the settings say about storing responses.

    @ivar scope: Who may be served a response. Within C{project} and C{token} this is, for the provider, a cache of its
        key's owner alone, so that C{Authorization} is no obstacle (RFC 9111, section 3.5); C{private} responses are
        kept only where C{token} separates one client from the other.
    @ivar default_ttl: For how long a response is fresh that does not say so, where it may be kept by guess.
    @ivar heuristics: Whether one that says when it was modified last is fresh for a tenth of the time since then, at
        most L{MAX_HEURISTIC_SECONDS} (RFC 9111, section 4.2.2).
    @ivar own_cors: C{Access-Control-…} is the proxy's own affair; see L{fields.incoming}.
    """

    scope: Scope = "project"
    default_ttl: float = 0.0
    heuristics: bool = False
    own_cors: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedHead:
    """A response's head as it came, and when.

    @ivar length: Bytes of the body, as far as the head says; C{None} where it does not.
    @ivar request_time: When the request for it left; C{response_time}: when its head was there. By the clock that
        ages are counted by (RFC 9111, section 4.2.3).
    @ivar wall: C{response_time} in seconds since the epoch, which is what dates are compared with; C{None}: the same.
    """

    code: int
    phrase: bytes
    lines: list[bytes]
    request_time: float
    response_time: float
    wall: float | None = None
    length: int | None = None

    @property
    def date(self) -> float:
        """When it came, as dates tell the time."""
        return self.response_time if self.wall is None else self.wall


class NotStored(str):
    """Why a response is not stored: one word for C{X-Cache-Debug}."""


def storable(
    received: ReceivedHead, rules: StoringRules, asked: Directives, granted: float | None = None
) -> Entry | NotStored:
    """What is to be stored of a response, its body left out; or why nothing is.

    @param asked: The request's C{Cache-Control}.
    @param granted: For a request whose response HTTP would not let us store by itself (a C{POST}): for how long it is
        fresh where it does not say so; C{None} for any other request.
    """
    lines = FieldLines.of(received.lines)
    said = directives.parse(lines.values(b"cache-control"))
    stream = is_event_stream(lines)
    surrogate = _for_surrogates(lines)
    why = _refusal(received.code, said, rules, asked) or ("no-store" if b"no-store" in surrogate else "")
    if why:
        return NotStored(why)
    vary = vary_names(lines)
    if b"*" in vary:
        return NotStored("vary")
    if rules.scope == "shared" and not CREDENTIALS.isdisjoint(vary):
        return NotStored("vary-on-credentials")
    lifetime = _lifetime(received, lines, [surrogate, said], rules, granted)
    if lifetime is None:
        return NotStored("no-freshness")
    # A condition of ours on a POST would ask for something else: 412, or a 304 that means nothing (RFC 9110, section
    # 13.1.2). So a response to one has no validators.
    etag, modified = b"", b""
    if granted is None:
        etag, modified = lines.value(b"etag") or b"", lines.value(b"last-modified") or b""
    # Providers say "no-cache" of every stream, to keep proxies from buffering it; who granted it, knows.
    always = b"no-cache" in said and not (stream and granted is not None)
    found = Entry(
        code=received.code,
        phrase=received.phrase,
        head=b"\r\n".join(_dated(stored_lines(lines, own_cors=rules.own_cors), lines, received)),
        body=b"",
        generated_at=received.response_time - _initial_age(received, lines, lifetime, slow=granted is None),
        lifetime=lifetime,
        no_cache=always,
        must_revalidate=always or any(name in said for name in (b"must-revalidate", b"proxy-revalidate", b"s-maxage")),
        stale_while_revalidate=float(said.seconds(b"stale-while-revalidate") or 0),
        stale_if_error=float(said.seconds(b"stale-if-error") or 0),
        etag=etag,
        last_modified=modified if dates.parse(modified, received.date) is not None else b"",
        vary=vary,
        stream=stream,
    )
    usable = not found.no_cache and found.age(received.response_time) < lifetime
    if usable or found.etag or found.last_modified or found.stale_while_revalidate or found.stale_if_error:
        return found
    return NotStored("stale-at-once")


def stored_lines(lines: Iterable[bytes], *, own_cors: bool = False) -> list[bytes]:
    """The field lines that may be stored (RFC 9111, section 3.1), as they go on to clients."""
    passed = FieldLines.of(fields.incoming(lines, own_cors=own_cors))
    return [line for line, name in zip(passed, passed.names, strict=True) if not _of_one_exchange(name)]


def _dated(stored: list[bytes], lines: FieldLines, received: ReceivedHead) -> list[bytes]:
    """A response that does not say when it was made was made when it came (RFC 9110, section 6.6.1)."""
    return stored if b"date" in lines.names else [*stored, b"Date: " + dates.render(received.date)]


def vary_names(lines: FieldLines) -> tuple[bytes, ...]:
    """The request fields that a response was selected by, in lower case, each once, in order of the alphabet.

    One that is encoded counts as chosen by C{Accept-Encoding} even if it does not say so.
    """
    names = {name.lower() for name in directives.members(lines.values(b"vary"))}
    if b"content-encoding" in lines.names:
        names.add(b"accept-encoding")
    return tuple(sorted(names))


def _refusal(code: int, said: Directives, rules: StoringRules, asked: Directives) -> str:
    if b"no-store" in asked:
        return "request-no-store"
    if b"must-understand" in said:
        if code not in UNDERSTOOD:
            return "must-understand"
    elif b"no-store" in said:
        return "no-store"
    if b"private" in said and rules.scope != "token":
        return "private"
    if code in (206, 304) or code < 200:
        return "status"
    if rules.scope == "shared" and not any(name in said for name in (b"public", b"must-revalidate", b"s-maxage")):
        return "authorization"
    return ""


def _for_surrogates(lines: FieldLines) -> Directives:
    """What C{Surrogate-Control} says to any cache in front of the provider; not what is meant for one by name.

    It may say how long a response is fresh, or that it is not to be kept. What C{Cache-Control} forbids
    stays forbidden.
    """
    if b"surrogate-control" not in lines.names:
        return NOTHING
    told = directives.members(lines.values(b"surrogate-control"))
    return directives.parse([member for member in told if b";" not in member])


def _lifetime(
    received: ReceivedHead, lines: FieldLines, words: list[Directives], rules: StoringRules, granted: float | None
) -> float | None:
    """For how long it is fresh; C{None} where there is no reason to keep it at all.

    @param words: What is said of that, the weightier first.
    """
    for said in words:
        for name in (b"s-maxage", b"max-age"):
            seconds = said.seconds(name)
            if seconds is not None:
                return float(seconds)
    expires = lines.values(b"expires")
    if expires:
        return _until(expires, received, lines)
    if granted is not None:
        return granted if received.code == 200 else None
    if received.code in HEURISTIC or b"public" in said:
        guess = _guess(received, lines) if rules.heuristics else 0.0
        if guess or rules.default_ttl:
            return guess or rules.default_ttl
    validators = b"etag" in lines.names or b"last-modified" in lines.names
    return 0.0 if validators and (received.code in HEURISTIC or b"no-cache" in said) else None


def _until(expires: list[bytes], received: ReceivedHead, lines: FieldLines) -> float:
    """What C{Expires} says; a date that is none, or two of them, is one in the past (RFC 9111, section 5.3)."""
    at = dates.parse(expires[0], received.date) if len(expires) == 1 else None
    if at is None:
        return 0.0
    date = dates.parse(lines.value(b"date") or b"", received.date)
    return min(max(0.0, at - (received.date if date is None else date)), float(MAX_DELTA_SECONDS))


def _guess(received: ReceivedHead, lines: FieldLines) -> float:
    date = dates.parse(lines.value(b"date") or b"", received.date)
    modified = dates.parse(lines.value(b"last-modified") or b"", received.date)
    if modified is None:
        return 0.0
    return min(max(0.0, (received.date if date is None else date) - modified) / 10, MAX_HEURISTIC_SECONDS)


def _initial_age(received: ReceivedHead, lines: FieldLines, lifetime: float, *, slow: bool) -> float:
    """The corrected initial age (RFC 9111, section 4.2.3); past all freshness where C{Age} is not one number.

    @param slow: Whether the time that the response took may have been spent on its way, in some other cache.
    """
    date = dates.parse(lines.value(b"date") or b"", received.date)
    apparent = 0.0 if date is None else max(0.0, received.date - date)
    ages = lines.values(b"age")
    if not ages:
        stated = 0.0
    elif len(ages) == 1 and ages[0].isdigit():
        stated = float(min(int(ages[0][:11]), MAX_DELTA_SECONDS))
    else:
        return max(lifetime, apparent) + 1.0
    return max(apparent, stated + (max(0.0, received.response_time - received.request_time) if slow else 0.0))


def _of_one_exchange(name: bytes) -> bool:
    return name in _OF_ONE_EXCHANGE or name.startswith(_OF_ONE_EXCHANGE_BEGIN)
