"""Sealed provider keys, hashed tokens, and the one key that both are made from."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from hashlib import sha256
from typing import SupportsBytes

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

RandomBytes = Callable[[int], bytes]

_VERSION = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class CannotOpen(Exception):
    """What was sealed cannot be opened: another key, another context, or changed bytes."""


def derive(master: bytes | str, purpose: str) -> bytes:
    """32 bytes for one purpose from the one master key (HKDF-SHA-256, RFC 5869).

    The master is as strong as whoever chose it: HKDF does not stretch a weak password.
    """
    key = master.encode() if isinstance(master, str) else master
    if not key:
        raise ValueError("The encryption key is empty.")
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"llmproxy " + purpose.encode()).derive(key)


class Sealer:
    """Seals text with AES-256-GCM so that it opens only with the same key and in the same context.

    Sealed bytes are a version (1), a nonce (12), the ciphertext and its tag (16).
    """

    def __init__(self, key: bytes, random: RandomBytes = os.urandom) -> None:
        if len(key) != 32:
            raise ValueError("A sealing key has 32 bytes.")
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, text: str, *context: str) -> bytes:
        """Seal C{text} for C{context}, such as a project's id and the name of an API."""
        nonce = self._random(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, text.encode(), _bound(context))

    def open(self, sealed: bytes, *context: str) -> str:
        """The text; L{CannotOpen} where key, context or bytes are not those of the sealing."""
        if sealed[:1] != _VERSION or len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise CannotOpen("These bytes were not sealed by this version.")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _bound(context)).decode()
        except InvalidTag:
            raise CannotOpen("The key, the context or the sealed bytes are not those of the sealing.") from None


def _bound(context: tuple[str, ...]) -> bytes:
    """The version and the context as one string of bytes that no other context shares: each part with its length."""
    parts = [part.encode() for part in context]
    return _VERSION + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class TokenHasher:
    """Hashes tokens with a key, so that a copied database is no list of tokens and can check no guess."""

    def __init__(self, key: SupportsBytes) -> None:
        if len(bytes(key)) != 32:
            raise ValueError("A hashing key has 32 bytes.")
        self._key = key

    def hash(self, token: str) -> str:
        """HMAC-SHA-256 of the token, 64 hexadecimal digits."""
        return hmac.new(bytes(self._key), token.encode(), sha256).hexdigest()


def mask(key: str) -> str:
    """The key's first and last characters, at most a quarter of it: C{sk-p…c0de}."""
    shown = min(4, len(key) // 8)
    return f"{key[:shown]}…{key[len(key) - shown :]}"
