"""Makes HTML of pages: the templates, what they may call, and the header fields that protect them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llmproxy.base.timestamps import rfc3339
from llmproxy.proxy.own_response import NOSNIFF, BufferedResponse
from llmproxy.web.admin import formats
from llmproxy.web.admin.pages.forms import LIMIT_FIELDS, metadata_text
from llmproxy.web.admin.visit import HtmlPage
from llmproxy.web.respond import NO_STORE

HERE = Path(__file__).parent
# The pages by their paths, each with the operation that whoever opens it must be allowed.
MENU = (
    ("/admin/", "Overview", "report_activity"),
    ("/admin/projects", "Projects", "list_projects"),
    ("/admin/groups", "Groups", "list_groups"),
    ("/admin/tokens", "Tokens", "list_tokens"),
    ("/admin/usage", "Usage", "report_usage"),
    ("/admin/requests", "Requests", "list_requests"),
    ("/admin/alerts", "Alerts", "list_alerts"),
    ("/admin/upstreams", "Upstreams", "list_upstreams"),
    ("/admin/cache", "Cache", "get_cache"),
    ("/admin/playground", "Playground", "list_apis"),
    ("/admin/audit", "Audit", "list_audit"),
    ("/admin/settings", "Settings", "list_settings"),
    ("/admin/keys", "Keys", "list_keys"),
    ("/admin/sessions", "Sessions", "list_sessions"),
)
# What was done, said on top of the page that follows.
DONE: Mapping[str, str] = {
    "project-created": "The project was created.",
    "project-changed": "The project was changed.",
    "project-deactivated": "The project was deactivated: all its tokens are refused from now on.",
    "project-activated": "The project is active again.",
    "group-created": "The group was created.",
    "group-changed": "The group was changed.",
    "group-deleted": "The group was removed.",
    "tokens-revoked": "All tokens of the project were revoked.",
    "token-changed": "The token was changed.",
    "token-revoked": "The token was revoked: it is refused from now on.",
    "cache-purged": "The stored responses were removed.",
    "upstream-changed": "The provider's state was changed.",
    "key-revoked": "The key was revoked, and its sessions are over.",
    "session-ended": "The session was ended.",
}
# Scripts and styles only from here, never inline; nothing from elsewhere; nobody may frame a page.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY = (
    b"Content-Security-Policy: " + POLICY.encode(),
    NOSNIFF,
    b"X-Frame-Options: DENY",
    # Not no-referrer: with that, browsers hide the origin of a form too, which is checked.
    b"Referrer-Policy: same-origin",
    b"Cross-Origin-Opener-Policy: same-origin",
    b"Cross-Origin-Resource-Policy: same-origin",
    b"Permissions-Policy: camera=(), microphone=(), geolocation=()",
)
_TYPES = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}
_FOR_EVER = b"Cache-Control: public, max-age=31536000, immutable"
_HTML = b"Content-Type: text/html; charset=utf-8"


class Renderer:
    """Renders pages, and has the files beside them.

    @ivar files: The static files, by the name under which pages refer to them, which changes with their content.
    """

    def __init__(self) -> None:
        self.files: dict[str, BufferedResponse] = {}
        self._names: dict[str, str] = {}
        for path in sorted((HERE / "static").iterdir()):
            self._add(path)
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        names = ("number", "compact", "usd", "seconds", "size", "percent", "change", "share", "budget", "setting")
        self._environment.filters.update({name: getattr(formats, name) for name in names})
        self._environment.globals["static"] = self._names.__getitem__
        self._environment.globals["menu"] = MENU
        self._environment.globals["nonce"] = partial(token_hex, 16)
        self._environment.globals["metadata_text"] = metadata_text
        self._environment.globals["percent"] = formats.percent
        self._environment.globals["usd_column"] = formats.usd_column
        self._environment.globals["limit_names"] = {field.name: field.label for field in LIMIT_FIELDS}

    def _add(self, path: Path) -> None:
        content = path.read_bytes()
        name = f"{path.stem}.{sha256(content).hexdigest()[:12]}{path.suffix}"
        kind = b"Content-Type: " + _TYPES[path.suffix]
        self.files[name] = BufferedResponse(200, content, (kind, _FOR_EVER, NOSNIFF))
        self._names[path.name] = f"/admin/static/{name}"

    def html(self, page: HtmlPage, now: float, **common: Any) -> BufferedResponse:
        """A page as a response; C{common} is what all pages have."""
        template = self._environment.get_template(page.template)
        shown: dict[str, Any] = {
            "ago": partial(formats.relative, now=now),
            "until": partial(formats.exact, now=now),
            "ago_at": lambda at: formats.relative(rfc3339(at), now),
            "done_text": DONE.get(common.pop("done", ""), ""),
        }
        text = template.render({**shown, **common, **page.values})
        return BufferedResponse(page.status, text.encode("utf-8", "replace"), (_HTML, NO_STORE, *SECURITY))
