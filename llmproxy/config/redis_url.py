"""A Redis server's URL, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis server is, and how to be let in.

    @ivar path: Of a Unix socket; then C{host} and C{port} mean nothing.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def __str__(self) -> str:
        """Fit for a log: without the user and the password."""
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.database}"


def parse_redis_url(url: str) -> RedisAddress:
    """Take apart C{redis://[user:password@]host[:port][/database]}, C{rediss://…} and C{unix:///path[?db=database]}.

    L{ValueError} says what is wrong with it, and repeats nothing of it.
    """
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError("it has a fragment")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user and not password:
        raise ValueError("it has a user without a password")
    if parts.scheme == "unix":
        path, database = _path(parts), _database(parts.query.removeprefix("db="))
        return RedisAddress(path=path, user=user, password=password, database=database)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("it must begin with redis://, rediss:// or unix://")
    if parts.query:
        raise ValueError("it has a query")
    if not parts.hostname or parts.port == 0:
        raise ValueError("it has no host" if not parts.hostname else "its port is not one")
    return RedisAddress(
        host=parts.hostname,
        port=parts.port or DEFAULT_PORT,
        tls=parts.scheme == "rediss",
        user=user,
        password=password,
        database=_database(parts.path.removeprefix("/")),
    )


def _path(parts: SplitResult) -> str:
    if parts.hostname or not parts.path.strip("/"):
        raise ValueError("a socket's path must be absolute (unix:///run/redis.sock)")
    if parts.query and not parts.query.startswith("db="):
        raise ValueError("its query may only be db=…")
    return unquote(parts.path)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError("its database is not a number")
    return int(text or 0)
