"""Somebody with a cookie who visits the admin pages, without a browser."""

from __future__ import annotations

import re
from http.client import HTTPConnection
from urllib.parse import urlencode

from tests.support.processes import HOST
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT

FORM = "application/x-www-form-urlencoded"


class Visitor:
    """Sees what a script sees.

    @ivar cookie: The session's name and value, once it is signed in.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    def get(self, path: str, **fields: str) -> Response:
        return self._send("GET", path, None, fields)

    def post(self, path: str, form: dict[str, str], **fields: str) -> Response:
        return self._send("POST", path, urlencode(form).encode(), {"Content-Type": FORM, **fields})

    def sign_in(self, secret: str = MANAGEMENT) -> Response:
        reply = self.post("/admin/sign-in", {"secret": secret, "next": "/admin/"})
        self.cookie = (reply.header("Set-Cookie") or "").partition(";")[0]
        return reply

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.get("/admin/").body.decode())
        assert found
        return found[1]

    def _send(self, method: str, path: str, body: bytes | None, fields: dict[str, str]) -> Response:
        connection = HTTPConnection(HOST, self.port, timeout=30)
        try:
            cookie = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(method, path, body, {**cookie, **{k.replace("_", "-"): v for k, v in fields.items()}})
            reply = connection.getresponse()
            return Response.whole(reply.status, reply.reason, reply.getheaders(), reply.read())
        finally:
            connection.close()
