"""What a connection to a provider tells the one that it belongs to."""

from __future__ import annotations

from typing import Any, Protocol

from llmproxy.wire.client.pending_request import PendingRequest


class ConnectionOwner(Protocol):
    """Where a connection belongs."""

    def on_idle(self, connection: Any) -> None:
        """Its response is complete, and it can be used again."""

    def on_unusable(self, connection: Any) -> None:
        """It will not be used again."""

    def on_closed(self, connection: Any) -> None:
        """It is closed."""

    def on_given_up(self, connection: Any) -> None:
        """The provider has closed it while it was unused, or before anything of the next request had come there."""

    def repeat(self, request: PendingRequest) -> None:
        """Send this on a fresh connection: the one it was on had been closed by the provider."""
