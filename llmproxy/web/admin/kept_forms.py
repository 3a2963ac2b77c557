"""Forms that were sent when their session was over: kept in the page to sign in, and offered again behind it.

Nothing is done by this: what was kept is sent by whoever has signed in, from a page that shows what it says, with the
new session's own token. The server keeps nothing of it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from llmproxy.web.admin.visit import HtmlPage

SECRET_FIELDS = frozenset({"key", "secret", "token"})
OWN_FIELDS = frozenset({"csrf", "once", "seen"})  # of the form's machinery: nobody wrote them
MAX_KEPT_FIELDS = 200


class KeptForm(NamedTuple):
    """Where a form was sent to, and its fields without those of its session.

    @ivar path: Of the admin pages. @ivar body: Its fields, urlencoded.
    """

    path: str
    body: str


def unsent_form(path: str, fields: Mapping[str, Sequence[str]]) -> KeptForm | None:
    """A form that was sent to this path, as it can stand in a page; C{None} where none is sent there."""
    if path == "/admin/resume":
        return form_within(fields)
    if not fields or not _takes_forms(path):
        return None
    pairs = [(name, value) for name, values in fields.items() if name != "csrf" for value in values]
    return KeptForm(path, urlencode(pairs))


def form_within(fields: Mapping[str, Sequence[str]]) -> KeptForm | None:
    """The form that came along with these fields; C{None} where there was none that one of the pages has."""
    path, body = fields.get("kept_path", [""])[-1], fields.get("kept", [""])[-1]
    return KeptForm(path, body) if _takes_forms(path) else None


def offered_again(form: KeptForm, csrf: str, cookies: tuple[bytes, ...] = ()) -> HtmlPage:
    """The page that shows what was written, and sends it.

    @param csrf: The token of the session that sends it.
    """
    try:
        pairs = parse_qsl(form.body, keep_blank_values=True, max_num_fields=MAX_KEPT_FIELDS, errors="strict")
    except ValueError:
        pairs = []
    sent = [(name, value) for name, value in pairs if name not in ("csrf", "seen")]
    values: dict[str, Any] = {
        "path": form.path,
        "fields": sent,
        "shown": [
            (name.replace("_", " "), "(not shown)" if name in SECRET_FIELDS else value)
            for name, value in sent
            if value and name not in OWN_FIELDS
        ],
        "csrf": csrf,
        "back": _page_above(form.path),
    }
    return HtmlPage("kept.html", values, 200, cookies)


def _takes_forms(path: str) -> bool:
    from llmproxy.web.admin.pages import ROUTES  # late, as the templates

    return any("POST" in methods and pattern.fullmatch(path) for pattern, methods in ROUTES)


def _page_above(path: str) -> str:
    """The page that a form stands on, or one above it."""
    from llmproxy.web.admin.pages import ROUTES

    while path.count("/") > 2:
        if any("GET" in methods and pattern.fullmatch(path) for pattern, methods in ROUTES):
            return path
        path = path.rpartition("/")[0]
    return path if path != "/admin" else "/admin/"
