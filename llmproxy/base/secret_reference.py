"""What stands in a secret's place."""

from __future__ import annotations


class SecretReference(str):
    """Where a secret is to be found, in place of the secret: C{env:NAME}, C{file:/path}, C{<plugin>:<name>}."""

    __slots__ = ()
