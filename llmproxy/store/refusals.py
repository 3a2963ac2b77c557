"""Why a store must not be used as it is. Raised at start only; each sentence says what to do."""

from __future__ import annotations


class CannotStart(Exception):
    """The daemon must not start; the message is a full sentence for its operator and holds no secret."""


class BadAddress(CannotStart):
    """The store's URL, or the place it names, cannot be used."""


class NoDriver(CannotStart):
    """The database's driver is not installed."""


class DatabaseTooNew(CannotStart):
    """A newer llmproxy has changed this database; this one would misread it."""


class WrongKey(CannotStart):
    """What is stored was sealed with another encryption key."""


class LostKey(CannotStart):
    """The file with the encryption key is gone, and there is a database that needs it."""


class Busy(CannotStart):
    """Another process kept the lock on the database's upgrade for too long."""


class UnsafeSecret(CannotStart):
    """A file that should hold a secret is readable by others, or is not such a file at all."""
