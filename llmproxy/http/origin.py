"""Where a server is: RFC 9110, section 4.3.1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """C{http} or C{https}, a host name or address (IPv6 without brackets), a port."""

    scheme: str
    host: str
    port: int

    @cached_property
    def netloc(self) -> str:
        """As it stands in C{Host}: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @cached_property
    def host_header(self) -> bytes:
        """L{netloc} as bytes: the value of C{Host}."""
        return self.netloc.encode("ascii")

    @cached_property
    def url(self) -> bytes:
        """Without a path."""
        return f"{self.scheme}://{self.netloc}".encode("ascii")


def split_base_url(base_url: str) -> tuple[Origin, bytes]:
    """A checked C{base_url}: its origin, and the path that goes before all others, without a slash at its end."""
    parts = urlsplit(base_url)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return Origin(parts.scheme, parts.hostname or "", port), parts.path.rstrip("/").encode("ascii")
