"""The pages by their paths."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmproxy.web.admin.pages import (
    alerts,
    audit,
    cache,
    exports,
    groups,
    keys,
    overview,
    playground,
    projects,
    requests,
    sessions,
    settings,
    tokens,
    upstreams,
    usage,
)
from llmproxy.web.admin.visit import Handler

_ID = "([A-Za-z0-9._:%-]{1,200})"


def _routes(table: Mapping[str, Mapping[str, Handler]]) -> tuple[tuple[re.Pattern[str], Mapping[str, Handler]], ...]:
    return tuple((re.compile(path.replace("{id}", _ID)), methods) for path, methods in table.items())


ROUTES = _routes(
    {
        "/admin/": {"GET": overview.show},
        "/admin/projects": {"GET": projects.show_all, "POST": projects.create},
        "/admin/projects/{id}": {"GET": projects.show, "POST": projects.change},
        "/admin/projects/{id}/keys": {"POST": projects.change_key},
        "/admin/projects/{id}/active": {"POST": projects.change_active},
        "/admin/projects/{id}/revoke": {"POST": projects.revoke_tokens},
        "/admin/projects/{id}/tokens": {"POST": tokens.create},
        "/admin/groups": {"GET": groups.show_all, "POST": groups.create},
        "/admin/groups/{id}": {"GET": groups.show, "POST": groups.change},
        "/admin/groups/{id}/delete": {"POST": groups.delete},
        "/admin/tokens": {"GET": tokens.show_all},
        "/admin/tokens/{id}": {"GET": tokens.show, "POST": tokens.change},
        "/admin/tokens/{id}/revoke": {"POST": tokens.revoke},
        "/admin/tokens/{id}/rotate": {"POST": tokens.rotate},
        "/admin/alerts": {"GET": alerts.show_all},
        "/admin/usage": {"GET": usage.show},
        "/admin/usage.csv": {"GET": usage.export},
        "/admin/requests": {"GET": requests.show_all},
        "/admin/requests/{id}": {"GET": requests.show},
        "/admin/upstreams": {"GET": upstreams.show_all},
        "/admin/upstreams/{id}/{id}": {"POST": upstreams.change},
        "/admin/cache": {"GET": cache.show, "POST": cache.purge},
        "/admin/playground": {"GET": playground.show},
        "/admin/keys": {"GET": keys.show_all, "POST": keys.create},
        "/admin/keys/{id}/revoke": {"POST": keys.revoke},
        "/admin/audit": {"GET": audit.show},
        "/admin/settings": {"GET": settings.show, "POST": settings.reload},
        **{path: {"GET": exports.export} for path in exports.EXPORTS},
        "/admin/sessions": {"GET": sessions.show_all},
        "/admin/sessions/{id}/end": {"POST": sessions.end},
    }
)
