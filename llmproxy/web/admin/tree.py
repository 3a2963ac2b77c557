"""The pages as one Resource, to be served at C{/admin}: who may, what was sent, which page, what it becomes."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    ProxyError,
    RequestTooLarge,
    StoreUnavailable,
    Unauthorized,
)
from llmproxy.errors.management import CrossSiteRequest
from llmproxy.interfaces import IAuditLogger
from llmproxy.model import AuditEntry
from llmproxy.proxy.own_response import BufferedResponse, as_proxy_error
from llmproxy.web.admin.kept_forms import KeptForm, form_within, offered_again, unsent_form
from llmproxy.web.admin.sessions import LONGEST_SECONDS, ActiveSession, Sessions
from llmproxy.web.admin.visit import HtmlPage, ManagementCalls, PerformManagement, Redirect, Result, Visit
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.roles import Principal
from llmproxy.web.respond import NO_STORE, StreamedResponse, identify, run

if TYPE_CHECKING:
    from llmproxy.web.admin.identity import IdentitySignIn
    from llmproxy.web.admin.rendering import Renderer

MAX_FORM_BYTES = 256 * 1024
THEMES = ("auto", "light", "dark")
_COOKIE = "llmproxy_session"
_THEME_COOKIE = "llmproxy_theme"
_STATE_COOKIE = "llmproxy_sign_in"


class AdminPages(Resource):
    """Serves the pages to whoever is signed in, and to everybody else only the page to do so.

    @param perform: Calls the management API, which does all that is done here.
    @param auth: Knows the management token, and slows down whoever guesses at it.
    """

    isLeaf = True

    def __init__(
        self,
        *,
        perform: PerformManagement,
        auth: ManagementAuth,
        sessions: Sessions,
        audit: IAuditLogger,
        now: Callable[[], float],
        identity: IdentitySignIn | None = None,
        denials: IAuditLogger | None = None,
    ) -> None:
        """
        @param identity: By whom people may sign in too.
        @param denials: Where it is written that they were refused, if not in C{audit}.
        """
        Resource.__init__(self)
        self._identity = identity
        self._denials = denials or audit
        self._perform = perform
        self._auth = auth
        self._sessions = sessions
        self._audit = audit
        self._now = now
        self._made: Renderer | None = None

    @property
    def _renderer(self) -> Renderer:
        """Made when the first page is asked for: a daemon whose pages nobody opens does not load the templates."""
        if self._made is None:
            from llmproxy.web.admin.rendering import Renderer

            self._made = Renderer()
        return self._made

    def render(self, request: Request) -> int:
        request_id = identify(request)
        run(request, self._respond(request, _body(request), request_id), request_id=request_id)
        return NOT_DONE_YET

    async def _respond(self, request: Request, body: bytes, request_id: str) -> BufferedResponse | StreamedResponse:
        path = request.path.decode("latin-1")
        if path.startswith("/admin/static/"):
            return self._static(path, request.method)
        active: ActiveSession | None = None
        principal: Principal | None = None
        try:
            if len(body) > MAX_FORM_BYTES:
                raise RequestTooLarge
            if request.method == b"POST":
                _check_origin(request)
            active = await self._session(request)
            principal = None if active is None else await self._principal(active)
            active = None if principal is None else active  # a key that has been revoked ends its sessions
            result = await self._result(request, path, body, active, principal, request_id)
        except Exception as e:
            result = _error_page(as_proxy_error(e, request_id), principal is not None)
        try:
            return self._finished(request, path, result, active, principal)
        except Exception as e:  # what the page shows cannot be shown: then one that shows nothing but that
            return self._finished(request, path, _error_page(as_proxy_error(e, request_id), False), None, None)

    async def _result(
        self,
        request: Request,
        path: str,
        body: bytes,
        active: ActiveSession | None,
        principal: Principal | None,
        request_id: str,
    ) -> Result:
        from llmproxy.web.admin.pages import ROUTES  # late, as the templates

        fields = _form(body) if request.method == b"POST" else {}
        if path == "/admin":
            return Redirect("/admin/")
        if path == "/admin/theme":
            return _theme(request, fields)
        if path == "/admin/sign-in" and request.method == b"POST":
            return await self._sign_in(request, fields, request_id)
        if path.startswith("/admin/oidc/") and request.method == b"GET" and self._identity is not None:
            return await self._by_identity(request, path, request_id, self._identity)
        if active is None or principal is None:
            return _sign_in_page("", _next_path(request), 401 if path != "/admin/" else 200, unsent_form(path, fields))
        if path == "/admin/resume" and (form := form_within(fields)):
            return offered_again(form, active.session.csrf_token)
        if request.method == b"POST":
            sent = fields.get("csrf", [""])[-1]
            if not hmac.compare_digest(sent.encode(), active.session.csrf_token.encode()):
                raise CrossSiteRequest
        if path == "/admin/sign-out" and request.method == b"POST":
            await self._sessions.end(active.session.id)
            await self._write(request, "admin.sign_out", request_id, active, principal)
            return _without_session(Redirect("/admin/"))
        for pattern, methods in ROUTES:
            if match := pattern.fullmatch(path):
                handler = methods.get("GET" if request.method == b"HEAD" else request.method.decode("latin-1"))
                if handler is None:
                    raise MethodNotAllowed(headers={"Allow": ", ".join(methods)})
                return await handler(self._visit(request, path, match.groups(), fields, active, principal, request_id))
        raise NotFound("There is no such page.")

    def _visit(
        self,
        request: Request,
        path: str,
        arguments: Sequence[str],
        fields: dict[str, list[str]],
        active: ActiveSession,
        principal: Principal,
        request_id: str,
    ) -> Visit:
        calls = ManagementCalls(self._perform, principal, self._auth.client(request), request_id)
        form = {name: values[-1] for name, values in fields.items()}
        return Visit(
            request.method.decode("latin-1"),
            path,
            tuple(arguments),
            _query(request),
            form,
            fields,
            active.session,
            principal,
            calls,
            self._now(),
            self._sessions,
        )

    async def _session(self, request: Request) -> ActiveSession | None:
        secret = _cookie(request, _COOKIE)
        return await self._sessions.find(secret) if secret else None

    async def _sign_in(self, request: Request, fields: dict[str, list[str]], request_id: str) -> Result:
        secret = fields.get("secret", [""])[-1].strip()
        following, form = fields.get("next", ["/admin/"])[-1], form_within(fields)
        try:
            principal = await self._auth.sign_in(secret.encode(), self._auth.client(request))
        except Unauthorized:
            await self._write(request, "admin.sign_in", request_id)
            said = "This is not the management token, and no management key that is valid."
            return _sign_in_page(said, following, 401, form)
        active = await self._sessions.begin(principal.actor, self._auth.client(request), _field(request, b"user-agent"))
        await self._write(request, "admin.sign_in", request_id, active, principal)
        where = _safe_path(following)
        cookie = _session_cookie(active, self._auth.is_secure(request))
        if form is not None:
            return offered_again(form, active.session.csrf_token, (cookie,))
        return BufferedResponse(303, b"", (b"Location: " + where.encode(), NO_STORE, cookie))

    async def _principal(self, active: ActiveSession) -> Principal | None:
        """Whose session it is; C{None} where that one may sign in no more."""
        if active.session.principal is None:
            return await self._auth.principal_of(active.session.subject)
        return None if self._identity is None else self._identity.principal(active.session)

    async def _by_identity(self, request: Request, path: str, request_id: str, identity: IdentitySignIn) -> Result:
        """To the identity provider, and back from it."""
        if path == "/admin/oidc/sign-in":
            departure = await identity.depart(_safe_path(_query(request).get("next", "")))
            cookie = _state_cookie(departure.cookie, 600, identity.is_secure)
            return BufferedResponse(303, b"", (b"Location: " + departure.url.encode("ascii"), NO_STORE, cookie))
        if path != "/admin/oidc/callback":
            raise NotFound("There is no such page.")
        try:
            arrival = await identity.arrive(_query(request), _cookie(request, _STATE_COOKIE))
        except (Unauthorized, Forbidden) as e:
            await self._write(request, "admin.sign_in", request_id, code=e.code)
            return _sign_in_page(e.message, "/admin/", 401, None, (_state_cookie("", 0, identity.is_secure),))
        principal = arrival.principal
        active = await self._sessions.begin(
            principal.actor,
            self._auth.client(request),
            _field(request, b"user-agent"),
            principal.as_json(),
        )
        await self._write(request, "admin.sign_in", request_id, active, principal)
        # A redirect would still count as coming from the provider's site: a strict cookie would not go along.
        secure = identity.is_secure or self._auth.is_secure(request)
        cookies = (_session_cookie(active, secure), _state_cookie("", 0, secure))
        return HtmlPage("signed_in.html", {"name": principal.name, "next": arrival.following}, 200, cookies)

    async def _write(
        self,
        request: Request,
        action: str,
        request_id: str,
        active: ActiveSession | None = None,
        principal: Principal | None = None,
        code: str = "",
    ) -> None:
        """Into the audit log; without a session: that none was given, and by C{code} why not to somebody by OIDC."""
        details: dict[str, object] = {"by": "oidc", "code": code} if code else {}
        if principal is not None and principal.audit_name:
            details["actor_name"] = principal.audit_name
        if active is not None:
            details["session"] = active.session.id[:8]
        await (self._denials if code else self._audit).log(
            AuditEntry(
                at=self._now(),
                action=action,
                actor="unknown" if principal is None else principal.actor,
                outcome="failure" if active is None else "success",
                request_id=request_id,
                client=self._auth.client(request),
                details=details,
            )
        )

    def _static(self, path: str, method: bytes) -> BufferedResponse:
        if method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD"})
        file = self._renderer.files.get(path.rpartition("/")[2])
        if file is None:
            raise NotFound
        return file

    def _finished(
        self, request: Request, path: str, result: Result, active: ActiveSession | None, principal: Principal | None
    ) -> BufferedResponse | StreamedResponse:
        """The response that a result becomes; a session whose secret was changed is told to the browser."""
        renewed = (
            (_session_cookie(active, self._auth.is_secure(request)),) if active is not None and active.renewed else ()
        )
        if isinstance(result, Redirect):
            where = result.path + (f"?done={result.done}" if result.done else "")
            return BufferedResponse(303, b"", (b"Location: " + where.encode(), NO_STORE, *renewed))
        if not isinstance(result, HtmlPage):
            return result
        theme = _cookie(request, _THEME_COOKIE)
        common: dict[str, Any] = {
            "identity": self._identity is not None,
            "session": active.session if active is not None else None,
            "principal": principal,
            "may": principal.may if principal is not None else lambda action, project=None: False,
            "path": path,
            "theme": theme if theme in THEMES else "auto",
            "done": _query(request).get("done", ""),
        }
        response = self._renderer.html(result, self._now(), **common)
        return BufferedResponse(response.code, response.body, (*response.lines, *renewed, *result.lines))


def _sign_in_page(
    problem: str, following: str, status: int, form: KeptForm | None = None, lines: tuple[bytes, ...] = ()
) -> HtmlPage:
    """
    @param following: Where to go on; C{form}: what is to be sent then.
    """
    return HtmlPage("sign_in.html", {"problem": problem, "next": following, "kept": form}, status, lines)


def _error_page(error: ProxyError, signed_in: bool) -> HtmlPage:
    message = error.message
    if isinstance(error, StoreUnavailable):
        certain = "what was sent may not have been stored" if signed_in else "nothing was changed"
        message = f"The store does not answer, and it has what these pages show: {certain}. Try again in a moment."
    values = {"error": error, "message": message}
    return HtmlPage("error.html" if signed_in else "error_plain.html", values, error.status)


def _body(request: Request) -> bytes:
    if request.content is None:
        return b""
    request.content.seek(0)
    body: bytes = request.content.read(MAX_FORM_BYTES + 1)
    return body


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=200, errors="strict")
    except ValueError:
        raise BadRequest("The form is not readable.") from None


def _query(request: Request) -> dict[str, str]:
    raw = request.uri.partition(b"?")[2]
    try:
        found = parse_qs(raw.decode("ascii"), max_num_fields=50, errors="strict")
    except ValueError:
        raise BadRequest("The query is not readable.") from None
    return {name: values[-1] for name, values in found.items()}


def _field(request: Request, name: bytes) -> str:
    values = request.requestHeaders.getRawHeaders(name) or [b""]
    return bytes(values[-1]).decode("utf-8", "replace")


def _check_origin(request: Request) -> None:
    """A form comes from a page of this host: browsers say so, and what is no browser carries the form's token."""
    origin, host = _field(request, b"origin"), _field(request, b"host")
    site = _field(request, b"sec-fetch-site")
    if (origin and urlsplit(origin).netloc != host) or site not in ("", "same-origin", "none"):
        raise CrossSiteRequest


def _cookie(request: Request, name: str) -> str:
    """The value of one of our cookies, which need no quotes: Python's own parser takes seconds for some of what may
    stand there, and finds none where it does not like one. Of several, ours is the last: those for longer paths come
    first (RFC 6265, section 5.4)."""
    found = ""
    for each in _field(request, b"cookie").split(";"):
        called, _, value = each.partition("=")
        found = value.strip() if called.strip() == name else found
    return found


def _session_cookie(active: ActiveSession, is_secure: bool) -> bytes:
    secure = "; Secure" if is_secure else ""
    return (
        f"Set-Cookie: {_COOKIE}={active.secret}; Path=/admin; Max-Age={LONGEST_SECONDS:.0f}; HttpOnly; "
        f"SameSite=Strict{secure}"
    ).encode()


def _state_cookie(value: str, seconds: int, is_secure: bool) -> bytes:
    """Lax, not strict: it has to come along when the provider sends the browser back."""
    secure = "; Secure" if is_secure else ""
    return (
        f"Set-Cookie: {_STATE_COOKIE}={value}; Path=/admin/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    ).encode()


def _safe_path(path: str) -> str:
    """The path of a page, whoever has written it."""
    return path if re.fullmatch(r"/admin/[\x21-\x7e]*", path) else "/admin/"


def _without_session(to: Redirect) -> BufferedResponse:
    gone = f"Set-Cookie: {_COOKIE}=; Path=/admin; Max-Age=0; HttpOnly; SameSite=Strict".encode()
    return BufferedResponse(303, b"", (b"Location: " + to.path.encode(), NO_STORE, gone, b'Clear-Site-Data: "cache"'))


def _theme(request: Request, fields: dict[str, list[str]]) -> BufferedResponse:
    chosen = fields.get("theme", ["auto"])[-1]
    back = fields.get("back", ["/admin/"])[-1]
    if request.method != b"POST" or chosen not in THEMES or not re.fullmatch(r"/admin/[\x21-\x7e]*", back):
        raise NotFound
    cookie = f"Set-Cookie: {_THEME_COOKIE}={chosen}; Path=/admin; Max-Age=31536000; SameSite=Strict".encode()
    return BufferedResponse(303, b"", (b"Location: " + back.encode(), NO_STORE, cookie))


def _next_path(request: Request) -> str:
    """Where to go on after signing in: the page that was asked for."""
    uri: str = request.uri.decode("latin-1")
    return uri if request.method == b"GET" and uri.startswith("/admin/") else "/admin/"
