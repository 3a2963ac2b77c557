"""A small OpenID Connect provider for tests, as a process of its own, which runs this file.

It has a discovery document, keys that can be rotated, an authorization endpoint with one page and one link on it, and a
token endpoint that checks client, code, redirect URI and PKCE. What it is told below C{/-/} is for the test only.
"""

from __future__ import annotations

import hmac
import html
import json
import secrets
import sys
import time
import urllib.parse
import urllib.request
from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, JWKRegistry, Key, RSAKey

from tests.support.processes import HOST, Process, free_port, start_command

CLIENT_ID, CLIENT_SECRET = "llmproxy-admin", "a secret of a client, long enough"


class OidcServer:
    """The provider, for the time of a C{with} block. Its issuer has another host than a daemon on 127.0.0.1: what comes
    from there is of another site.
    """

    def __init__(self, log: Path, pem: Path | None = None) -> None:
        """
        @param pem: Its key and certificate, for C{localhost}; without it there is no TLS.
        """
        self.port, self._control_port = free_port(), free_port()
        self.issuer = f"{'http' if pem is None else 'https'}://localhost:{self.port}"
        self._pem = pem
        self._log = log
        self._process: Process | None = None
        self._keys: dict[str, Key] = {}

    def __enter__(self) -> OidcServer:
        pem = [] if self._pem is None else [self._pem]
        self._process = start_command([__file__, str(self.port), str(self._control_port), *pem], self._log)
        end = time.monotonic() + 60
        while True:
            try:
                self.counts()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.__exit__(None, None, None)
                    raise AssertionError(self._log.read_text()) from None
                time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def _control(self, path: str, value: object = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(f"http://{HOST}:{self._control_port}/-/{path}", data, timeout=20) as answer:
            return json.load(answer)

    def counts(self) -> dict[str, int]:
        """Requests by path."""
        return dict(self._control("counts"))

    def private_keys(self) -> list[Key]:
        """Those it signs with, private. To read one of RSA takes long: its numbers are checked."""
        found = [self._keys.get(data["kid"]) or JWKRegistry.import_key(data) for data in self._control("keys")]
        self._keys = {str(key.kid): key for key in found}
        return found

    def rotate(self) -> None:
        """Sign with fresh keys from now on, and withdraw the others."""
        self._control("rotate", {})

    def available(self, is_available: bool) -> None:
        """Whether it answers anything but 503."""
        self._control("available", is_available)

    def delay(self, seconds: float) -> None:
        """Let everybody wait for the keys."""
        self._control("delay", seconds)

    def person(self, **claims: Any) -> None:
        """Who signs in from now on; what they claim goes into the ID token, above all else that is in there."""
        self._control("person", claims)

    def forge(self, algorithm: str) -> None:
        """Sign ID tokens so from now on, as L{forged} does; C{""}: properly."""
        self._control("forge", algorithm)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a good access token; C{None} takes one away."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "llmproxy", "sub": "ada", "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, key: Key | None = None, **claims: Any) -> str:
        """A JWT, good as far as nothing here says otherwise."""
        key = key or self.private_keys()[0]
        algorithm = (header or {}).get("alg") or ("RS256" if isinstance(key, RSAKey) else "ES256")
        kept = {"alg": algorithm, "kid": key.kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in kept.items() if value is not None},
            self.claims(**claims),
            key,
            algorithms=[algorithm],
        )


def forged(algorithm: str, key: Key, claims: dict[str, Any]) -> str:
    """A JWT without a signature (C{none}), or with one that anybody can make who knows the public key (C{HS256})."""
    head = {"alg": algorithm, "kid": key.kid}
    said = ".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, claims))
    if algorithm == "none":
        return f"{said}."
    signature = hmac.digest(key.as_pem(private=False), said.encode(), "sha256")
    return f"{said}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _fresh_keys() -> list[Key]:
    return [
        RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"}),
        ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig"}),
    ]


def serve(port: int, control: int, pem: str = "") -> None:
    """Serve until the process is killed; the test asks at the second port."""
    from twisted.internet import reactor, ssl, task
    from twisted.web.resource import Resource
    from twisted.web.server import NOT_DONE_YET, Request, Site

    issuer = f"{'https' if pem else 'http'}://localhost:{port}"

    class Provider(Resource):
        isLeaf = True

        def __init__(self) -> None:
            super().__init__()
            self.keys = _fresh_keys()
            self.available = True
            self.delay = 0.0
            self.person: dict[str, Any] = {"sub": "ada"}
            self.forgery = ""
            self.codes: dict[str, dict[str, str]] = {}
            self.counts: dict[str, int] = {}

        def render(self, request: Request) -> Any:
            path = request.path.decode()
            if path.startswith("/-/"):
                return self.json(request, self.control(path[3:], request.content.read()))
            self.counts[path] = self.counts.get(path, 0) + 1
            query = {name.decode(): values[-1].decode() for name, values in (request.args or {}).items()}
            if not self.available:
                return self.json(request, {}, 503)
            if path == "/.well-known/openid-configuration":
                return self.json(request, self.discovery())
            if path == "/keys":
                body = self.json(request, {"keys": [key.as_dict(private=False) for key in self.keys]})
                task.deferLater(reactor, self.delay, request.write, body).addCallback(lambda _: request.finish())
                return NOT_DONE_YET
            if path == "/authorize":
                return self.authorize(request, query)
            if path == "/token":
                return self.json(request, *self.redeem(request, query))
            return self.json(request, {}, 404)

        def json(self, request: Request, value: object, status: int = 200) -> bytes:
            request.setResponseCode(status)
            request.setHeader("content-type", "application/json")
            return json.dumps(value).encode()

        def control(self, what: str, body: bytes) -> object:
            value = json.loads(body or b"null")
            if what == "rotate":
                self.keys = _fresh_keys()
            elif what == "available":
                self.available = value
            elif what == "delay":
                self.delay = value
            elif what == "person":
                self.person = value
            elif what == "forge":
                self.forgery = value
            elif what == "keys":
                return [key.as_dict(private=True) for key in self.keys]
            return self.counts

        def discovery(self) -> dict[str, object]:
            return {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/keys",
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }

        def authorize(self, request: Request, query: dict[str, str]) -> bytes:
            if query["client_id"] != CLIENT_ID or query["response_type"] != "code":
                return self.json(request, {"error": "unauthorized_client"}, 400)
            code = secrets.token_hex(8)
            self.codes[code] = query
            answer = {"code": code, "state": query["state"], "iss": issuer}
            where = html.escape(f"{query['redirect_uri']}?{urllib.parse.urlencode(answer)}")
            request.setHeader("content-type", "text/html")
            return f"<html><h1>Provider</h1><a href='{where}'>Continue</a></html>".encode()

        def redeem(self, request: Request, form: dict[str, str]) -> tuple[object, int]:
            basic = (request.getHeader("authorization") or "").removeprefix("Basic ")
            client, _, secret = b64decode(basic).decode().partition(":")
            if (client, urllib.parse.unquote_plus(secret)) != (CLIENT_ID, CLIENT_SECRET):
                return {"error": "invalid_client"}, 401
            asked = self.codes.pop(form["code"], None)
            challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if (
                asked is None
                or form["grant_type"] != "authorization_code"
                or form["redirect_uri"] != asked["redirect_uri"]
                or (asked["code_challenge_method"], asked["code_challenge"]) != ("S256", challenge)
            ):
                return {"error": "invalid_grant"}, 400
            now = int(time.time())
            claims = {"iss": issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
            key, signed = self.keys[0], {**claims, **self.person}
            good = jwt.encode({"alg": "RS256", "kid": key.kid}, signed, key)
            token = forged(self.forgery, key, signed) if self.forgery else good
            return {"access_token": "opaque", "token_type": "Bearer", "id_token": token}, 200

    running: Any = reactor
    site = Site(Provider())
    running.listenTCP(control, site, interface=HOST)
    if pem:
        running.listenSSL(port, site, ssl.DefaultOpenSSLContextFactory(pem, pem), interface=HOST)
    else:
        running.listenTCP(port, site, interface=HOST)
    running.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
