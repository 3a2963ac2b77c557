"""What the claims of an identity provider let somebody manage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.auth.oidc.subjects import subject_id, texts
from llmproxy.config.management_settings import SignInSettings
from llmproxy.errors.identity import ClaimsNotAllowed
from llmproxy.management_key import Role
from llmproxy.web.manage.roles import Principal

MAX_NAME_CHARACTERS = 100


class NoRole(ClaimsNotAllowed):
    """Somebody whom the provider knows, and who manages nothing here."""

    message = "You have no role here. Whoever manages this proxy can give you one at the provider."


def principal_of_claims(claims: Mapping[str, Any], settings: SignInSettings) -> Principal:
    """Whoever these verified claims are about; L{NoRole}, or L{ClaimsNotAllowed} where one is not what it should be."""
    names, subject = settings.claims, subject_id(claims)
    values = {*(texts(claims, names.role) or ()), *(texts(claims, names.role, split=True) or ())}
    wanted: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("admin", settings.roles.admin),
        ("operator", settings.roles.operator),
        ("viewer", settings.roles.viewer),
    )
    role = next((role for role, allowed in wanted if values & {*allowed}), None)
    if role is None:
        raise NoRole
    projects = None
    if names.projects and role != "admin":
        projects = texts(claims, names.projects, split=True) or ()
    name = (texts(claims, names.name) or (str(claims["sub"]),))[:1]
    return Principal("".join(name)[:MAX_NAME_CHARACTERS] or subject, role, projects, subject)
