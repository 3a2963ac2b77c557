"""The encryption keys in force, and what is made from them: one can take another's place while requests go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from llmproxy.sealing import CannotOpen, RandomBytes, Sealer, derive

TOKENS: Final = "tokens"
MANAGEMENT_KEYS: Final = "management keys"
AUDIT_LOG: Final = "audit log"
DATA_KEYS: Final = (TOKENS, MANAGEMENT_KEYS, AUDIT_LOG)
PROVIDER_KEYS: Final = "provider keys"
CREATIONS: Final = "creations"
SIGN_INS: Final = "sign-ins"


def parse_keys(text: str) -> tuple[str, ...]:
    """The encryption keys in this text, one on each line, the one that seals first."""
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


class DataKey:
    """A key that stays when the encryption key changes, because what it has hashed cannot be hashed anew.

    The database keeps it sealed; until that is open, it is what the first encryption key makes of its purpose.
    """

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __bytes__(self) -> bytes:
        return self._value

    def use(self, value: bytes) -> None:
        """Be this from now on."""
        self._value = value


class Keyring:
    """The encryption keys: the first seals, and each of them opens.

    May be asked in any thread.
    """

    def __init__(self, keys: Sequence[str], read: Callable[[], Sequence[str] | None] = lambda: None) -> None:
        """
        @param read: Looks for the keys again; C{None} where they are as they were when it last looked. Blocks.
        """
        if not keys:
            raise ValueError("The encryption key is empty.")
        self.keys = tuple(keys)
        self._read = read
        self.data_keys = {purpose: DataKey(derive(keys[0], purpose)) for purpose in DATA_KEYS}

    def refresh(self) -> bool:
        """Look for the keys again; whether they are others now. Those that were known still open what they sealed."""
        found = self._read()
        if not found:
            return False
        keys = tuple(dict.fromkeys([*found, *self.keys]))
        changed, self.keys = keys != self.keys, keys
        return changed

    def sealer(self, purpose: str, random: RandomBytes = os.urandom) -> KeyringSealer:
        """What seals for one purpose."""
        return KeyringSealer(self, purpose, random)


class KeyringSealer(Sealer):
    """Seals with the first key of a keyring, and opens with any."""

    def __init__(self, keyring: Keyring, purpose: str, random: RandomBytes = os.urandom) -> None:
        self._keyring = keyring
        self._purpose = purpose
        self._random_bytes = random
        self._sealers: dict[str, Sealer] = {}

    def seal(self, text: str, *context: str) -> bytes:
        self._keyring.refresh()  # another process may have put a new key first
        return self._of(self._keyring.keys[0]).seal(text, *context)

    def open(self, sealed: bytes, *context: str) -> str:
        while True:
            for key in self._keyring.keys:
                try:
                    return self._of(key).open(sealed, *context)
                except CannotOpen as e:
                    problem = e
            if not self._keyring.refresh():
                raise problem

    def is_newest(self, sealed: bytes, *context: str) -> bool:
        """Whether the first key has sealed this."""
        try:
            self._of(self._keyring.keys[0]).open(sealed, *context)
        except CannotOpen:
            return False
        return True

    def _of(self, key: str) -> Sealer:
        if key not in self._sealers:
            self._sealers[key] = Sealer(derive(key, self._purpose), self._random_bytes)
        return self._sealers[key]
