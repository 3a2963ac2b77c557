"""Liveness, readiness and metrics."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.errors import StoreUnavailable, Unauthorized
from llmproxy.process.readiness import Checks
from llmproxy.web.ops import pages
from llmproxy.web.root import OPS, Root
from tests.support.client import ask
from tests.support.responses import Response


async def render(accept: str) -> tuple[str, bytes]:
    if "json" in accept:
        return "application/json", b"{}"
    return "text/plain; version=0.0.4", b"requests_total 1\n"


class OpsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.checks = {"store": "ok", "config": "ok"}

    async def readiness(self) -> Checks:
        return Checks(self.checks, {})

    def ask(self, path: str, method: str = "GET", accept: str = "*/*") -> Response:
        return ask(Root(ops=pages(render, self.readiness)), method, path, fields={"Accept": accept})

    def test_live(self) -> None:
        """A process that answers is alive, whatever else is down."""
        self.checks["store"] = "does not answer"
        for path in ("/health", "/healthz", "/live", "/livez"):
            reply = self.ask(path)
            self.assertEqual((reply.status, reply.json["status"]), (200, "ok"), path)
            self.assertEqual(reply["cache-control"], "no-store")

    def test_ready(self) -> None:
        """A process is ready while everything it was told to check is well."""
        for path in ("/ready", "/readyz"):
            reply = self.ask(path)
            self.assertEqual((reply.status, reply.json), (200, {"status": "ok", "checks": self.checks}), path)

    def test_not_ready(self) -> None:
        """One check that fails makes it 503, and says which."""
        self.checks["store"] = "does not answer"
        reply = self.ask("/ready")
        self.assertEqual((reply.status, reply.json), (503, {"status": "unavailable", "checks": self.checks}))

    def test_check_raises(self) -> None:
        """A check that cannot be made is no readiness."""

        async def readiness() -> Checks:
            raise StoreUnavailable

        self.assertEqual(ask(Root(ops=pages(render, readiness)), "GET", "/ready").status, 503)

    def test_metrics(self) -> None:
        """Text for Prometheus, JSON for who asks for it, and the alias is always text."""
        for path, accept, kind in (
            ("/metrics", "*/*", "text/plain; version=0.0.4"),
            ("/metrics", "application/json", "application/json"),
            ("/metrics/prometheus", "application/json", "text/plain; version=0.0.4"),
        ):
            reply = self.ask(path, accept=accept)
            self.assertEqual((reply.status, reply["content-type"]), (200, kind), path)

    def test_metrics_that_are_not_for_everybody(self) -> None:
        """Whoever is not admitted learns nothing; the other pages are for a supervisor, who has no token."""

        async def admit(request: object) -> None:
            raise Unauthorized

        root = Root(ops=pages(render, self.readiness, admit=admit))
        for path in OPS:
            reply = ask(root, "GET", path.decode())
            self.assertEqual(reply.status, 401 if b"metrics" in path else 200, path)

    def test_other_methods(self) -> None:
        """Nothing is changed here."""
        reply = self.ask("/health", "POST")
        self.assertEqual((reply.status, reply["allow"]), (405, "GET, HEAD"))
        self.assertEqual(self.ask("/metrics", "HEAD").status, 200)

    def test_every_page_is_reserved(self) -> None:
        """A page that can be served is kept from the proxy on every listener."""
        self.assertEqual(OPS, pages(render, self.readiness).keys())
