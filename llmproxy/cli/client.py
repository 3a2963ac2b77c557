"""Talks to the management API of a running daemon."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click

from llmproxy.cli.errors import NotAuthorized, RequestRejected, Unreachable

TIMEOUT_SECONDS = 30.0
PAGE_SIZE = 1000
OWN_ERROR = "X-LLMProxy-Error"  # a field of every error of llmproxy's own
PART_BYTES = 64 * 1024  # of a long response, at once
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class ManagementClient:
    """One daemon, and the token that manages it.

    Neither a proxy of the environment's nor a redirect is followed: the token goes to the URL that was named, and
    nowhere else.
    """

    def __init__(self, url: str, token: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The response's JSON, C{None} where it has none.

        @raise NotAuthorized: The management token is wrong.
        @raise RequestRejected: The daemon rejects this.
        @raise Unreachable: Nothing answers, or nothing that is llmproxy.
        """
        data = None if body is None else json.dumps(body).encode()
        request = self._call(method, path, data)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer = bytes(response.read(MAX_RESPONSE_BYTES))
        except urllib.error.HTTPError as e:
            with e:
                raise self._rejected(e) from e
        except (OSError, HTTPException) as e:
            raise self._unreachable(e) from e
        return self._read(answer) if answer else None

    def parts(self, path: str, **query: str) -> Iterator[bytes]:
        """A long response that is no JSON, part by part as it comes; it raises as L{request} does.

        @raise Unreachable: It broke off, too.
        """
        request = self._call("GET", f"{path}?{urlencode(query)}")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                while part := answer.read1(PART_BYTES):
                    yield bytes(part)
        except urllib.error.HTTPError as e:
            with e:
                raise self._rejected(e) from e
        except (OSError, HTTPException) as e:
            raise self._unreachable(e) from e

    def _call(self, method: str, path: str, data: bytes | None = None) -> urllib.request.Request:
        request = urllib.request.Request(self._url + path, data=data, method=method)
        request.add_header("Accept", "application/json")
        request.add_header("User-Agent", "llmproxy-cli")
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    def list_all(self, path: str, **query: str | Sequence[str]) -> dict[str, Any]:
        """Every page of a list, as one."""
        found = [row for rows in self.pages(path, **query) for row in rows]
        return {"data": found, "total": len(found)}

    def pages(self, path: str, **query: str | Sequence[str]) -> Iterator[list[Any]]:
        """The rows of a list, page by page."""
        following: dict[str, str] = {}
        while True:
            page = self.request("GET", f"{path}?{urlencode({**query, **following, 'limit': PAGE_SIZE}, doseq=True)}")
            if not isinstance(page, dict) or not isinstance(page.get("data"), list):
                raise self._is_other()
            yield page["data"]
            if not page.get("next_cursor"):
                return
            following = {"cursor": page["next_cursor"]}

    def _rest(self, answer: urllib.error.HTTPError) -> bytes:
        try:
            return bytes(answer.read(MAX_RESPONSE_BYTES))
        except (OSError, HTTPException) as e:
            raise self._unreachable(e) from e

    def _unreachable(self, error: Exception) -> Unreachable:
        why = str(getattr(error, "reason", None) or error) or type(error).__name__
        return Unreachable(f"{self._url} does not answer: {printable(why)}")

    def _read(self, answer: bytes) -> Any:
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as e:
            raise self._is_other() from e

    def _is_other(self, status: int = 200) -> Unreachable:
        """Nothing that it says is repeated: it may be about the management token."""
        return Unreachable(f"What answers at {self._url} is not llmproxy{f' ({status})' if status != 200 else ''}.")

    def _rejected(self, response: urllib.error.HTTPError) -> click.ClickException:
        status = response.code
        if 300 <= status < 400:
            return Unreachable(f"{self._url} answers with a redirect ({status}), which is not followed.")
        if response.headers.get(OWN_ERROR) is None:
            return self._is_other(status)
        try:
            error = self._read(self._rest(response))["error"]
            said = f"{printable(str(error['message']))} ({status} {printable(str(error['code']))})"
        except (KeyError, TypeError, Unreachable):
            return self._is_other(status)
        return NotAuthorized(said) if status in (401, 403) else RequestRejected(said)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def check_url(url: str) -> str:
    """The URL as it was given; C{click.UsageError} where it is none that a token may be sent to."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fit = False
    if not fit or parts.query or parts.fragment or parts.username is not None or not url.isprintable() or " " in url:
        raise click.UsageError("The URL must be like https://proxy.example.com or http://127.0.0.1:8080.")
    if parts.scheme == "http" and not _local(parts.hostname or ""):
        click.echo("Warning: http to another machine; the management token can be read on the way.", err=True)
    return url


def management_path(*segments: str) -> str:
    """A path of the management API with these segments."""
    return "/manage/" + "/".join(quote(segment, safe="") for segment in segments)


def printable(text: str) -> str:
    """C{text} without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
