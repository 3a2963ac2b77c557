"""Which API a request is for, and what is sent to its provider."""

from __future__ import annotations

from typing import NamedTuple

from llmproxy.base.memo import BoundedMemo
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.errors import BadTarget, EndpointNotAllowed, MethodNotAllowed, NotFound
from llmproxy.http import body_hints, credentials, target
from llmproxy.http.endpoints import Endpoints
from llmproxy.http.origin import Origin, split_base_url
from llmproxy.http.target import RequestTarget

MAX_MEMO_ROUTES = 4096
MAX_MEMO_PATH_BYTES = 512  # of a longer path the route is not remembered


class Route(NamedTuple):
    """What became of a request's target.

    @ivar endpoint: The pattern that allowed it.
    @ivar target: What is sent to the provider: the base URL's path, then exactly the bytes that were matched.
    @ivar path: The path that was matched, without the API's prefix; C{query} as in L{RequestTarget}.
    @ivar auth: How the provider wants its key; see L{credentials.scheme}.
    @ivar method: The request's; C{b""} in that of a preflight.
    @ivar model: The model that the path names, C{""} where it names none; C{stream}: whether it asks for a stream.
    """

    api_name: str
    api: Api
    endpoint: str
    target: bytes
    path: bytes
    query: bytes | None
    origin: Origin
    auth: str
    model: str
    stream: bool
    method: bytes = b""

    def with_query(self, query: bytes | None) -> Route:
        """The same route with that query, which must be C{self.query} or a part of it."""
        if query == self.query:
            return self
        bare = self.target if self.query is None else self.target[: -len(self.query) - 1]
        sent = bare if query is None else bare + b"?" + query
        return self._replace(target=sent, query=query)


class _Mount:
    """One API, made ready."""

    def __init__(self, name: str, api: Api) -> None:
        self.name = name
        self.api = api
        self.endpoints = Endpoints(api.allowed_endpoints)
        self.allow = [*api.allowed_methods]
        if "GET" in self.allow and "HEAD" not in self.allow:  # the same without its body: RFC 9110, section 9.3.2
            self.allow.insert(self.allow.index("GET") + 1, "HEAD")
        self.methods = frozenset(method.encode("ascii") for method in self.allow)
        self.origin, self.base = split_base_url(api.base_url)
        self.auth = credentials.scheme(api.provider, api.auth)

    def route(self, method: bytes | None, path: bytes, segments: tuple[bytes, ...]) -> Route:
        endpoint = self.endpoints.match(segments, method)
        if endpoint is None:
            named = self.endpoints.methods(segments)
            if named:
                allowed = [each for each in self.allow if each.encode("ascii") in named]
                raise MethodNotAllowed(headers={"Allow": ", ".join(allowed)})
            if target.has_encoded_slash(path):
                raise BadTarget("The path holds an encoded slash where no endpoint of this API has one.")
            raise EndpointNotAllowed
        return Route(
            self.name,
            self.api,
            endpoint,
            self.base + path,
            path,
            None,
            self.origin,
            self.auth,
            body_hints.model_in_path(path),
            body_hints.names_stream(path),
            method or b"",
        )


class Routes:
    """Finds the API of a request: C{/{api}/…} by its name, any other path in the default API.

    @ivar apis: By their names.
    """

    def __init__(self, settings: Settings) -> None:
        mounts = {name: _Mount(name, api) for name, api in settings.apis.items()}
        self._mounts = {name.encode(): mount for name, mount in mounts.items()}
        self._default = mounts.get(settings.default_api)
        self.apis = settings.apis
        self._memo: BoundedMemo[tuple[bytes | None, bytes], Route] = BoundedMemo(MAX_MEMO_ROUTES)

    def match(self, method: bytes, uri: bytes) -> Route:
        """The route of a request.

        L{BadTarget} (400) where C{uri} could be read in more than one way, L{NotFound} where no API is there,
        L{MethodNotAllowed} and L{EndpointNotAllowed} as the API's lists say.
        """
        return self._match(method, uri)

    def is_root(self, uri: bytes) -> bool:
        """Whether this is the address of an API itself, C{/} or C{/{api}}: clients look there whether it answers."""
        name = uri.partition(b"?")[0].strip(b"/")
        return name in self._mounts if name else self._default is not None

    def preflight(self, uri: bytes) -> Route:
        """The route of a browser's preflight, which is a question about another method than its own."""
        return self._match(None, uri)

    def api_of(self, uri: bytes) -> Api | None:
        """The API that C{uri} is for, even if it may not be called so; C{None} where there is none."""
        name = uri.partition(b"?")[0][1:].partition(b"/")[0]
        mount = self._mounts.get(name, self._default)
        return None if mount is None else mount.api

    def _match(self, method: bytes | None, uri: bytes) -> Route:
        path, mark, query = uri.partition(b"?")
        route = self._memo.get((method, path))
        if route is None:
            route = self._find(method, path)
            if len(path) <= MAX_MEMO_PATH_BYTES:
                self._memo[method, path] = route
        if not mark:
            return route
        target.check_query(query)
        return route.with_query(query)

    def _find(self, method: bytes | None, path: bytes) -> Route:
        mount, rest = self._mount(target.parse(path))
        if method is not None and method not in mount.methods:
            raise MethodNotAllowed(headers={"Allow": ", ".join(mount.allow)})
        return mount.route(method, rest.path, rest.segments)

    def _mount(self, asked: RequestTarget) -> tuple[_Mount, RequestTarget]:
        """The API, and what is left of the target for it."""
        first, *rest = asked.segments
        mount = self._mounts.get(first)
        if mount is not None and rest:
            return mount, RequestTarget(asked.path[len(first) + 1 :], None, tuple(rest))
        if self._default is None:
            raise NotFound
        return self._default, asked
