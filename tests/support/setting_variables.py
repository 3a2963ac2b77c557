"""A value for every variable of the environment that sets something, other than what the setting is by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

from llmproxy.config import load
from llmproxy.config.environ import variable
from llmproxy.config.fields import Leaf, leaves

API = "{base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/models]}"
MINIMAL = f"apis: {{plain: {API}, other: {API}}}"
# What a number, a duration, a size and a flag may be; texts and lists, and what belongs together, stand below.
CANDIDATES = ("true", "false", "7s", "70KiB", "7")
VALUES: Mapping[str, str] = {
    "LLMPROXY_DEFAULT_API": "other",
    "LLMPROXY_SERVER_LISTEN": "tcp:{port}:interface=127.0.0.1",
    "LLMPROXY_SERVER_WORKERS": "1",  # where the file says 2
    "LLMPROXY_SERVER_UNDERSCORES_IN_HEADERS": "my_field",
    "LLMPROXY_SERVER_TRUSTED_PROXIES": "192.0.2.0/24",
    "LLMPROXY_SERVER_ADMIN_LISTEN": "unix:{home}/admin.sock",
    "LLMPROXY_SERVER_METRICS_LISTEN": "unix:{home}/metrics.sock",
    "LLMPROXY_AUTH_OIDC_ISSUER": "http://127.0.0.1:1",
    "LLMPROXY_AUTH_OIDC_AUDIENCE": "llmproxy",
    "LLMPROXY_AUTH_OIDC_JWKS_URL": "http://127.0.0.1:1/keys",
    "LLMPROXY_AUTH_OIDC_ALGORITHMS": "ES256",
    "LLMPROXY_AUTH_OIDC_CA_FILE": "{home}/ca.pem",
    "LLMPROXY_AUTH_OIDC_APIS": "other",
    "LLMPROXY_AUTH_OIDC_CLAIMS_PROJECT": "team",
    "LLMPROXY_AUTH_OIDC_CLAIMS_PROFILE": "profile",
    "LLMPROXY_AUTH_OIDC_CLAIMS_MODELS": "models",
    "LLMPROXY_AUTH_OIDC_CLAIMS_APIS": "apis",
    "LLMPROXY_AUTH_OIDC_DEFAULT_PROJECT": "proj-1",
    "LLMPROXY_AUTH_OIDC_DEFAULT_PROFILE": "small",  # which the file has
    "LLMPROXY_MANAGEMENT_OIDC_ISSUER": "http://127.0.0.1:1",
    "LLMPROXY_MANAGEMENT_OIDC_CLIENT_ID": "llmproxy",
    "LLMPROXY_MANAGEMENT_OIDC_REDIRECT_URI": "http://127.0.0.1:1/admin/oidc/callback",
    "LLMPROXY_MANAGEMENT_OIDC_AUDIENCE": "llmproxy-management",
    "LLMPROXY_MANAGEMENT_OIDC_SCOPES": "openid,groups",
    "LLMPROXY_MANAGEMENT_OIDC_CA_FILE": "{home}/ca.pem",
    "LLMPROXY_MANAGEMENT_OIDC_CLAIMS_NAME": "name",
    "LLMPROXY_MANAGEMENT_OIDC_CLAIMS_ROLE": "roles",
    "LLMPROXY_MANAGEMENT_OIDC_CLAIMS_PROJECTS": "projects",
    "LLMPROXY_MANAGEMENT_OIDC_ROLES_ADMIN": "admins",
    "LLMPROXY_MANAGEMENT_OIDC_ROLES_OPERATOR": "operators",
    "LLMPROXY_MANAGEMENT_OIDC_ROLES_VIEWER": "viewers",
    "LLMPROXY_STORE_URL": "sqlite:///{home}/other.db",
    "LLMPROXY_CACHE_BACKEND": "redis",
    "LLMPROXY_CACHE_REDIS_URL": "redis://127.0.0.1:1/1",
    "LLMPROXY_REDIS_URL": "redis://127.0.0.1:1/3",
    "LLMPROXY_REDIS_KEY_PREFIX": "other:",
    "LLMPROXY_REDIS_CA_FILE": "{home}/ca.pem",
    "LLMPROXY_LIMITS_BACKEND": "memory",  # where the file says redis
    "LLMPROXY_LIMITS_REDIS_URL": "redis://127.0.0.1:1/2",
    "LLMPROXY_LEDGER_DIRECTORY": "{home}/other-ledger",
    "LLMPROXY_LEDGER_SEGMENT_BYTES": "1MiB",
    "LLMPROXY_LEDGER_MAX_BYTES": "64MiB",
    "LLMPROXY_ALERTS_THRESHOLDS": "50,90",
    "LLMPROXY_ALERTS_WEBHOOK_URL": "http://127.0.0.1:1/alerts",
    "LLMPROXY_ALERTS_WEBHOOK_SECRET": "env:PATH",
    "LLMPROXY_ALERTS_WEBHOOK_CA_FILE": "{home}/ca.pem",
    "LLMPROXY_AUDIT_FILE": "{home}/other-audit.jsonl",
    "LLMPROXY_SECRETS_ENVIRONMENT": "TEAM_*,OTHER_KEY",
    "LLMPROXY_SECRETS_DIRECTORIES": "{home}/secrets",
    "LLMPROXY_STATE_DIR": "{home}/other-state",
}


def settable() -> Iterator[tuple[str, Leaf]]:
    """The variables, each with its setting."""
    return ((name, leaf) for leaf in leaves() if (name := variable(leaf)))


def value(name: str, leaf: Leaf) -> str | None:
    """What a test may give this variable; C{None} where L{VALUES} must say it."""
    if name in VALUES:
        return VALUES[name]
    if get_origin(leaf.info.annotation) is tuple or leaf.info.annotation is str:
        return None
    words = map(str, reversed(get_args(leaf.info.annotation)))
    return next((text for text in (*words, *CANDIDATES) if _fits(name, leaf, text)), None)


def values(home: Path, port: int) -> dict[str, str]:
    """One for each, for a daemon whose files are there."""
    found = {name: value(name, leaf) for name, leaf in settable()}
    return {name: text.format(home=home, port=port) for name, text in found.items() if text is not None}


def _fits(name: str, leaf: Leaf, text: str) -> bool:
    try:
        settings = load.parse(MINIMAL, "apis.yaml", {name: text})
    except load.SettingsError:
        return False
    found: object = settings
    for step in leaf.path:
        found = getattr(found, str(step))
    only = len(get_args(leaf.info.annotation)) == 1  # nothing else may stand there
    return only or found != leaf.info.default
