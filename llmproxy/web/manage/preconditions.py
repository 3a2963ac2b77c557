"""C{ETag} and C{If-Match}, and C{Idempotency-Key}: that a change is made to what was seen, and a creation only once."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from twisted.web.http import Request

from llmproxy.errors import Invalid, StoreUnavailable
from llmproxy.errors.management import PreconditionFailed
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.stores import Creations

R = TypeVar("R")

CONDITIONAL = frozenset(  # operations on what has an ETag
    {"update_group", "delete_group", "update_project", "deactivate_project", "update_token", "revoke_token"}
)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request makes its effect depend on.

    @ivar if_match: The field's value, as sent; C{""} where there is none.
    @ivar idempotency_key: Likewise.
    """

    if_match: str = ""
    idempotency_key: str = ""

    def check(self, revision: int) -> None:
        """L{PreconditionFailed} where C{If-Match} names other revisions than this one (RFC 9110, section 13.1.1)."""
        if not self.if_match or self.if_match.strip() == "*":
            return
        tags = _TAG.findall(self.if_match)
        if not tags or _TAG.sub("", self.if_match).strip(" \t,"):
            raise Invalid.part("header", "If-Match", 'must be the ETag of a response, such as "3", or *.')
        if etag(revision) not in tags:
            raise PreconditionFailed(headers={"ETag": etag(revision)})

    def check_untagged(self) -> None:
        """L{PreconditionFailed} where C{If-Match} names any: what has no ETag has none of these either."""
        if self.if_match and self.if_match.strip() != "*":
            raise PreconditionFailed("What this changes has no ETag: leave If-Match out.")


NO_PRECONDITIONS = Preconditions()


def preconditions(request: Request) -> Preconditions:
    """Those that stand in a request's head."""
    return Preconditions(_field(request, b"if-match"), _field(request, b"idempotency-key"))


def etag(revision: int) -> str:
    """The entity tag of what has this revision."""
    return f'"{revision}"'


def etag_line(revision: int) -> bytes:
    return f"ETag: {etag(revision)}".encode("ascii")


async def once(
    creations: Creations, who: str, what: str, key: str, body: bytes, create: Callable[[], Awaitable[R]]
) -> R | BufferedResponse:
    """What C{create} answers; where it was answered under this key before, that answer, and nothing is created.

    What is refused, or fails, is not kept: it may be tried again with the same key.
    """
    if not _KEY.fullmatch(key):
        raise Invalid.part("header", "Idempotency-Key", "must be 1 to 255 visible ASCII characters.")
    name = sha256("\0".join((who, what, key)).encode()).hexdigest()
    before = await creations.begin(name, sha256(body).hexdigest())
    if before is not None:
        return _restored(before)
    try:
        answer = await create()
    except Exception:
        with suppress(StoreUnavailable):
            await creations.release(name)
        raise
    with suppress(StoreUnavailable):  # it is created all the same
        if isinstance(answer, BufferedResponse):
            await creations.finish(name, _text(answer))
    return answer


def _text(answer: BufferedResponse) -> str:
    lines = [line.decode("latin-1") for line in answer.lines]
    return json.dumps({"code": answer.code, "lines": lines, "body": answer.body.decode()})


def _restored(text: str) -> BufferedResponse:
    stored = json.loads(text)
    lines = tuple(line.encode("latin-1") for line in stored["lines"])
    return BufferedResponse(stored["code"], stored["body"].encode(), (*lines, b"Idempotency-Replayed: true"))


def _field(request: Request, name: bytes) -> str:
    return b", ".join(request.requestHeaders.getRawHeaders(name) or []).decode("latin-1")
