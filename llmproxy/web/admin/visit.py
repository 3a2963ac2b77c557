"""A request for a page, and what a page responds with."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.store.admin_sessions import AdminSession
from llmproxy.web.admin.sessions import Sessions
from llmproxy.web.manage.preconditions import NO_PRECONDITIONS, Preconditions
from llmproxy.web.manage.roles import Principal
from llmproxy.web.respond import StreamedResponse

QueryValue = str | int | Sequence[str] | None


class PerformManagement(Protocol):
    """Does what a call to the management API would do: L{Management.perform<llmproxy.web.manage.Management>}."""

    async def __call__(
        self,
        method: str,
        uri: str,
        body: bytes,
        client: str,
        request_id: str,
        principal: Principal,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> BufferedResponse | StreamedResponse: ...


class ManagementCalls:
    """The management API, called by a page on behalf of whoever is signed in: same rules, same audit log."""

    def __init__(self, perform: PerformManagement, principal: Principal, client: str, request_id: str) -> None:
        self._perform = perform
        self._principal = principal
        self._client = client
        self._request_id = request_id

    async def get(self, path: str, **query: QueryValue) -> Any:
        """What it responds to GET; raises the L{ProxyError<llmproxy.errors.ProxyError>} it would refuse with.

        @param query: What is C{None} or empty is left out; of several values each is given.
        """
        return (await self.get_tagged(path, **query))[0]

    async def get_tagged(self, path: str, **query: QueryValue) -> tuple[Any, str]:
        """As L{get}, with the entity tag of what it was read in; C{""} where it has none."""
        response = await self._call("GET", path + _query(query))
        tags = (line[6:].decode("latin-1") for line in response.lines if line.startswith(b"ETag: "))
        return _parsed(response), next(tags, "")

    async def send(self, method: str, path: str, body: object = None, form: Mapping[str, str] | None = None) -> Any:
        """Have something changed; as L{get}.

        @param form: The form that asks for it: what it creates is created once, however often it is sent, and what it
            changes must be as it was when the form was made (L{llmproxy.web.manage.preconditions}).
        """
        content = b"" if body is None else json.dumps(body).encode()
        depends = NO_PRECONDITIONS if form is None else Preconditions(form.get("seen", ""), form.get("once", ""))
        return _parsed(await self._call(method, path, content, depends))

    async def raw(self, path: str, **query: QueryValue) -> BufferedResponse | StreamedResponse:
        """Its response to GET as it is, such as CSV."""
        return await self._call("GET", path + _query(query))

    async def _call(
        self, method: str, uri: str, body: bytes = b"", depends: Preconditions = NO_PRECONDITIONS
    ) -> BufferedResponse | StreamedResponse:
        return await self._perform(method, uri, body, self._client, self._request_id, self._principal, depends)


def _parsed(response: BufferedResponse | StreamedResponse) -> Any:
    assert isinstance(response, BufferedResponse), "only exports are streamed"
    return json.loads(response.body) if response.body else None


def _query(parameters: Mapping[str, QueryValue]) -> str:
    # "from" is a keyword of Python's, so callers write from_.
    given = {name.rstrip("_"): value for name, value in parameters.items() if value not in (None, "")}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page by somebody who is signed in.

    @ivar arguments: Parts of the path, in their order.
    @ivar query: The query's parameters, the last of each name; C{form}: likewise the fields of a form that was sent.
    @ivar fields: All fields, for those that come more than once.
    @ivar now: Seconds since the epoch.
    """

    method: str
    path: str
    arguments: tuple[str, ...]
    query: Mapping[str, str]
    form: Mapping[str, str]
    fields: Mapping[str, list[str]]
    session: AdminSession
    principal: Principal
    api: ManagementCalls
    now: float
    sessions: Sessions


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """A template with its values; C{lines}: further field lines, such as cookies."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    lines: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    """See there; after a change, so that loading the page again does not repeat it.

    @ivar done: What was done, a key of L{llmproxy.web.admin.rendering.DONE}; it is said on top of the page.
    """

    path: str
    done: str = ""


Result = HtmlPage | Redirect | BufferedResponse | StreamedResponse
Handler = Callable[[Visit], Awaitable[Result]]
