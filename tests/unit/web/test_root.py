"""Which part of the tree a request goes to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from llmproxy.web.root import OPS, Root
from tests.support.client import ask


class Named(Resource):
    isLeaf = True

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name

    def render(self, request: Request) -> bytes:
        return self.name + b" " + request.uri


class RootTests(SynchronousTestCase):
    def goes(self, root: Root, path: str) -> tuple[int, str]:
        reply = ask(root, "GET", path)
        return reply.status, reply.body.decode().partition(" ")[0] if reply.status == 200 else ""

    def test_parts(self) -> None:
        """Management, admin and ops have their paths; everything else is proxied, by its raw path."""
        root = Root(
            proxy=Named(b"proxy"), manage=Named(b"manage"), admin=Named(b"admin"), ops={b"/health": Named(b"ops")}
        )
        for path, part in {
            "/": "proxy",
            "/v1/chat/completions": "proxy",
            "/openai/v1/models?x=/manage": "proxy",
            "/manage": "manage",
            "/manage/projects": "manage",
            "/manage/projects?limit=1": "manage",
            "/admin/": "admin",
            "/health": "ops",
            "/health?x": "ops",
            "/health/": "proxy",
            "/healthy": "proxy",
            "//manage": "proxy",
            "//health": "proxy",
            "/%6danage/projects": "proxy",
            "/managed": "proxy",
            "/Manage": "proxy",
        }.items():
            self.assertEqual(self.goes(root, path), (200, part), path)

    def test_left_out(self) -> None:
        """What has been moved to a listener of its own is not here, and is not forwarded either."""
        root = Root(proxy=Named(b"proxy"))
        for path in ("/manage/projects", "/admin/", *(path.decode() for path in OPS)):
            self.assertEqual(self.goes(root, path), (404, ""), path)
        self.assertEqual(self.goes(root, "/v1/models"), (200, "proxy"))

    def test_no_proxy(self) -> None:
        """A listener for management proxies nothing; what is not there is told in JSON."""
        reply = ask(Root(manage=Named(b"manage")), "POST", "/v1/chat/completions", {"a": 1})
        self.assertEqual((reply.status, reply.json["error"]["code"]), (404, "not_found"))
