"""The server half: C{Site} reads requests strictly and streams both ways."""

from llmproxy.wire.server.request import Request
from llmproxy.wire.server.site import Site

__all__ = ["Request", "Site"]
