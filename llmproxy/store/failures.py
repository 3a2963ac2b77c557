"""What a database's failures mean here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from llmproxy.errors import Conflict, Invalid, StoreUnavailable

_NOT_STORABLE = "A value is too long, too large, or holds characters that the store cannot keep."


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of ours that the database's errors mean: L{StoreUnavailable} unless the values are to blame."""
    try:
        yield
    except (DataError, UnicodeError, OverflowError) as e:
        raise Invalid(_NOT_STORABLE) from e
    except IntegrityError as e:
        raise Conflict() from e
    except StatementError as e:
        if isinstance(e, DBAPIError):
            raise StoreUnavailable() from e
        raise Invalid(_NOT_STORABLE) from e
    except SQLAlchemyError as e:
        raise StoreUnavailable() from e
