"""What stands at the URL, and what does not."""

from __future__ import annotations

import json

from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.unit.cli.daemon import TOKEN, DaemonTestCase


class Says(Resource):
    """Answers everything with one status, body and Location; remembers what it was sent."""

    isLeaf = True

    def __init__(self, code: int, body: bytes, location: str = "", own: str = "") -> None:
        """
        @param own: The code of the error, where it is llmproxy that answers.
        """
        super().__init__()
        self.code, self.body, self.location, self.own = code, body, location, own
        self.heard: list[str] = []

    def render(self, request: Request) -> bytes:
        self.heard.append(request.uri.decode())
        request.setResponseCode(self.code)
        if self.own:
            request.setHeader("X-LLMProxy-Error", self.own)
        if self.location:
            request.setHeader("Location", self.location)
        return self.body


class Pages(Resource):
    """A list of C{total}, two to a page."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        begin = int(request.args.get(b"cursor", [b"0"])[0])
        data = [{"id": n} for n in range(5)][begin : begin + 2]
        following = str(begin + 2) if begin + 2 < 5 else None
        return json.dumps({"data": data, "total": None if begin else 5, "next_cursor": following}).encode()


class ServerTests(DaemonTestCase):
    async def test_nobody_there(self) -> None:
        """A daemon that does not run is told apart from one that refuses."""
        said = await self.fails(69, "--url", "http://127.0.0.1:1", "project", "list")
        self.assertIn("http://127.0.0.1:1 does not answer", said)
        self.assertNotIn("Warning", said)

    async def test_something_else(self) -> None:
        """What answers without being llmproxy is said to be that."""
        for code, body in ((200, b"<html>"), (404, b"<html>"), (500, b"{}"), (200, b"[" * 100_000)):
            said = await self.fails(69, "project", "show", "x", "--url", self.serve(Says(code, body)))
            self.assertIn("is not llmproxy", said)

    async def test_what_others_say_of_the_token(self) -> None:
        """An error that is not llmproxy's own is not repeated, though it looks the same."""
        body = json.dumps({"error": {"message": f"Incorrect API key provided: {TOKEN}", "code": "invalid_api_key"}})
        for code in (401, 400, 500):
            url = self.serve(Says(code, body.encode()))
            for command in (("project", "list"), ("usage", "export")):
                said = await self.fails(69, *command, "--url", url)
                self.assertIn(f"is not llmproxy ({code})", said)
                self.assertNotIn(TOKEN, said)

    async def test_lists_that_are_none(self) -> None:
        for body in (b"{}", b"[]", b'{"data": {}}', b"null"):
            self.assertIn(
                "is not llmproxy", await self.fails(69, "project", "list", "--url", self.serve(Says(200, body)))
            )

    async def test_redirect(self) -> None:
        """The token goes where it was sent to, and no further."""
        other = Says(200, b"{}")
        url = self.serve(Says(302, b"", self.serve(other)))
        self.assertIn("redirect", await self.fails(69, "--url", url, "project", "list"))
        self.assertEqual(other.heard, [])

    async def test_proxy_of_the_environment(self) -> None:
        """A proxy for everything else is not told the token."""
        other = Says(200, b"{}")
        await self.ok("project", "list", environ={"http_proxy": self.serve(other), "no_proxy": None})
        self.assertEqual(other.heard, [])

    async def test_pages(self) -> None:
        """A list longer than a page comes whole."""
        said = await self.ok("--url", self.serve(Pages()), "--output", "json", "project", "list")
        self.assertEqual(json.loads(said), {"data": [{"id": n} for n in range(5)], "total": 5})

    async def test_path_in_the_url(self) -> None:
        """A daemon behind another server's path is found there."""
        there = Says(200, b'{"id": "x"}')
        await self.ok("--url", self.serve(there) + "/llm/", "token", "show", "x")
        self.assertEqual(there.heard, ["/llm/manage/tokens/x"])

    async def test_unfit_url(self) -> None:
        """What is no URL for this is wrong usage."""
        for url in ("proxy:8080", "ftp://x", "http://", "http://x:99999", "http://u:p@x", "http://x/?q", "http://x y"):
            self.assertIn("must be like", await self.fails(2, "--url", url, "project", "list"))

    async def test_in_the_clear(self) -> None:
        """Whoever sends the token over a network without TLS is warned."""
        said = await self.fails(69, "--url", "http://0.0.0.0:1", "project", "list")
        self.assertIn("Warning", said)
        self.assertNotIn("Warning", await self.fails(69, "--url", "https://0.0.0.0:1", "project", "list"))

    async def test_steering_the_terminal(self) -> None:
        """A server's words are only words."""
        body = json.dumps({"error": {"message": "\x1b[2Jgone", "code": "\x07"}}).encode()
        said = await self.fails(1, "--url", self.serve(Says(409, body, own="conflict")), "project", "show", "x")
        self.assertIn("?[2Jgone (409 ?)", said)
