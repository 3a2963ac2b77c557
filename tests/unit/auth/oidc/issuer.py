"""An issuer in memory: its keys, the JWTs that it signs, and an C{IAgent} through which it is asked."""

from __future__ import annotations

import json
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

ISSUER = "https://id.example.com"
NOW = 1_800_000_000.0
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig", "alg": "RS256"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})


class MemoryResponse:
    def __init__(self, code: int, body: bytes) -> None:
        self.code = code
        self._body = body

    def deliverBody(self, protocol: Protocol) -> None:
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class MemoryIssuer:
    """Answers by C{pages}, and with 404 where there is none.

    @ivar asked: The URLs that were asked for. C{silent}: it takes requests and never answers; C{away}: it takes none.
    """

    def __init__(self, *keys: Key, issuer: str = ISSUER) -> None:
        self.asked: list[str] = []
        self.silent = self.away = False
        self.pages: dict[str, Any] = {
            f"{issuer}/.well-known/openid-configuration": {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/keys",
                "token_endpoint": f"{issuer}/token",
            }
        }
        self.publish(*(keys or (RSA, EC)))

    def publish(self, *keys: Key) -> None:
        self.pages[f"{ISSUER}/keys"] = {"keys": [key.as_dict(private=False) for key in keys]}

    def request(self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None) -> Any:
        self.asked.append(uri.decode())
        if self.silent:
            return Deferred()
        if self.away:
            return fail(RefusedError())
        page = self.pages.get(uri.decode())
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        return succeed(MemoryResponse(404 if page is None else 200, body))


def claims(**more: Any) -> dict[str, Any]:
    """Of a good JWT; C{None} takes one away."""
    made = {"iss": ISSUER, "aud": "llmproxy", "sub": "ada", "iat": int(NOW), "exp": int(NOW) + 600, **more}
    return {name: value for name, value in made.items() if value is not None}


def token(key: Key = RSA, header: dict[str, Any] | None = None, **more: Any) -> str:
    algorithm = (header or {}).get("alg") or {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}[key.key_type]
    made = {"alg": algorithm, "kid": key.kid, **(header or {})}
    made = {name: value for name, value in made.items() if value is not None}
    return jwt.encode(made, claims(**more), key, algorithms=[algorithm])
