"""A sealed word that shows at start whether the encryption key is the one that everything was sealed with."""

from __future__ import annotations

import hmac

from sqlalchemy import Connection, insert, select

from llmproxy.sealing import CannotOpen, Sealer, TokenHasher
from llmproxy.store.refusals import WrongKey
from llmproxy.store.tables import canaries

_NAME = "key"


def check(connection: Connection, sealer: Sealer, hasher: TokenHasher) -> None:
    """Leave a canary in a new database; raise L{WrongKey} where the one found does not open or does not match.

    Its text is a hash, so that it speaks for both keys.
    """
    expected = hasher.hash("canary")
    sealed = connection.scalar(select(canaries.c.sealed).where(canaries.c.name == _NAME))
    if sealed is None:
        connection.execute(insert(canaries).values(name=_NAME, sealed=sealer.seal(expected, "canary", _NAME)))
    elif not hmac.compare_digest(expected, _opened(sealer, bytes(sealed))):
        raise WrongKey(_WRONG)


def _opened(sealer: Sealer, sealed: bytes) -> str:
    try:
        return sealer.open(sealed, "canary", _NAME)
    except CannotOpen as e:
        raise WrongKey(_WRONG) from e


_WRONG = (
    "The keys in this database were sealed with another encryption key. Set ENCRYPTION_KEY (or the key file in the "
    "state directory) to the one that this database was made with."
)
