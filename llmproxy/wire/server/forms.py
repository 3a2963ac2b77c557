"""The fields of an HTML form, however the browser has sent them."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from twisted.web.http import parse_qs

from llmproxy.errors import BodyUnreadable

Fields = dict[bytes, list[bytes]]


def fields(content_type: bytes, body: bytes) -> Fields:
    """What was filled in, by name; nothing where the body is no form.

    Files that were uploaded count by their content alone, as in C{twisted.web}.

    @raise BodyUnreadable: for C{multipart/form-data} that has no parts.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        return dict(parse_qs(body, True))
    return _parts(content_type, body) if kind == b"multipart/form-data" else {}


def _parts(content_type: bytes, body: bytes) -> Fields:
    message = message_from_bytes(b"MIME-Version: 1.0\r\nContent-Type: " + content_type + b"\r\n\r\n" + body)
    if not message.is_multipart():
        raise BodyUnreadable("The form has no parts.")
    found: Fields = {}
    for part in message.get_payload():
        assert isinstance(part, Message)
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and name and isinstance(content, bytes):
            found.setdefault(name.encode("utf-8", "surrogateescape"), []).append(content)
    return found
