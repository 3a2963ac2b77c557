"""Why a store must not be used as it is, and what the failures of a database mean here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from llmproxy.errors import Conflict, FieldProblem, Invalid, StoreUnavailable

_NOT_STORABLE = "A value is too long, too large, or holds characters that the store cannot keep."
_NOT_STORABLE_BODY = (FieldProblem(_NOT_STORABLE, "pointer", "#"),)


class StartupError(Exception):
    """The daemon must not start. The message tells its operator what to do, in full sentences, and holds no secret."""


class InvalidStoreURL(StartupError):
    """The store's URL, or the place it names, cannot be used."""


class DriverMissing(StartupError):
    """The database's driver is not installed."""


class DatabaseTooNew(StartupError):
    """A newer llmproxy has changed this database; this one would misread it."""


class WrongKey(StartupError):
    """What is stored was sealed with another encryption key."""


class KeyMissing(StartupError):
    """The file with the encryption key is gone, and there is a database that needs it."""


class UpgradeInProgress(StartupError):
    """Another process kept the lock on the database's upgrade for too long."""


class UnsafeSecret(StartupError):
    """A file that should hold a secret is readable by others, or is not such a file at all."""


@contextmanager
def database_errors(doing: str) -> Iterator[None]:
    """Raise the errors of ours that the database's errors mean: L{StoreUnavailable} unless the values are to blame.

    @param doing: What could not be done then: C{The token could not be checked}.
    """
    try:
        yield
    except (DataError, UnicodeError, OverflowError) as e:
        raise Invalid(_NOT_STORABLE, _NOT_STORABLE_BODY) from e
    except IntegrityError as e:
        raise Conflict() from e
    except StatementError as e:
        if isinstance(e, DBAPIError):
            raise unavailable(doing, failure_reason(e.orig)) from e
        raise Invalid(_NOT_STORABLE, _NOT_STORABLE_BODY) from e
    except SQLAlchemyError as e:
        raise unavailable(doing, "no answer") from e


def unavailable(doing: str, why: str) -> StoreUnavailable:
    """The error that says what could not be done, and why."""
    return StoreUnavailable(f"{doing}. The store: {why}. Try again.", reason=why)


def failure_reason(error: BaseException | None) -> str:
    """Why a database refused something, in a few words, as far as it says so.

    SQLite's result codes (https://www.sqlite.org/rescode.html), PostgreSQL's SQLSTATE (appendix A of its manual).
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF, "failing")
    state = getattr(error, "sqlstate", None) or ""
    if not state and error is not None:  # libpq has only words where there is no connection
        return next((reason for words, reason in _CONNECTING if words in str(error)), "no answer")
    return _SQLSTATE.get(state, "no answer" if not state or state.startswith("08") else "failing")


_SQLITE = {
    5: "locked",  # SQLITE_BUSY
    6: "locked",  # SQLITE_LOCKED
    8: "read-only",  # SQLITE_READONLY
    10: "failing disk",  # SQLITE_IOERR
    11: "damaged",  # SQLITE_CORRUPT
    13: "disk full",  # SQLITE_FULL
    14: "file cannot be opened",  # SQLITE_CANTOPEN
    26: "file is no database",  # SQLITE_NOTADB
}
_CONNECTING = (
    ("FATAL", "connection rejected"),  # by the server: the role, its password, the database, pg_hba.conf
    ("Connection refused", "connection refused"),
    ("No such file", "connection refused"),  # there is no socket where the server's would be
    ("resolve host", "host not found"),  # psycopg's own words
    ("translate host name", "host not found"),
)
_SQLSTATE = {
    "25006": "read-only",  # read_only_sql_transaction
    "53100": "disk full",  # disk_full
    "53300": "too many connections",  # too_many_connections
    "55P03": "locked",  # lock_not_available
    "57014": "no answer",  # query_canceled, by statement_timeout
}
