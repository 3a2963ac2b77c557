"""What the claims of a JWT allow: its project, and the profile with its limits. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from llmproxy.auth.oidc.jwt import Claims, expiry, issued_at
from llmproxy.auth.oidc.subjects import subject_id, texts
from llmproxy.config.auth_settings import OidcSettings, Profile
from llmproxy.errors import ApiNotAllowed, ModelNotAllowed
from llmproxy.errors.identity import ClaimsNotAllowed
from llmproxy.model import Grant

_NOTHING_FURTHER = Profile()


def grant_of(claims: Claims, settings: OidcSettings) -> Grant:
    """The grant of whoever bears a JWT with these claims; the subject stands in for a token.

    L{ClaimsNotAllowed}, L{ModelNotAllowed} or L{ApiNotAllowed} where they allow nothing.
    """
    for name, wanted in settings.require.items():
        if not {*(texts(claims, name, split=True) or ()), *(texts(claims, name) or ())} & {*wanted}:
            raise ClaimsNotAllowed(f"Access takes another value of the claim {name} than this token has.")
    profile = _profile(claims, settings)
    models = _narrowed(profile.models, texts(claims, settings.claims.models, split=True))
    if models is None:
        raise ModelNotAllowed("The claims of this token allow no model.")
    apis = _narrowed(profile.apis, texts(claims, settings.claims.apis, split=True))
    apis = None if apis is None else _narrowed(settings.apis, apis or None)
    if apis is None:
        raise ApiNotAllowed("The claims of this token allow no API.")
    return Grant(
        project_id=_project(claims, settings),
        token_id=subject_id(claims),
        expires_at=expiry(claims, settings),
        issued_at=issued_at(claims),
        apis=apis,
        endpoints=profile.endpoints,
        models=models,
        ips=profile.ips,
        allowance=profile.allowance(),
        policy=profile.policy(),
    )


def _project(claims: Claims, settings: OidcSettings) -> str:
    values = texts(claims, settings.claims.project)
    if values is None:
        if settings.default_project:
            return settings.default_project
        raise ClaimsNotAllowed(f"This token names no project: it has no claim {settings.claims.project}.")
    if not settings.projects and values:
        return values[0]
    for value in values:
        if value in settings.projects:
            return settings.projects[value]
    raise ClaimsNotAllowed(f"The claim {settings.claims.project} of this token stands for no project.")


def _profile(claims: Claims, settings: OidcSettings) -> Profile:
    values = texts(claims, settings.claims.profile)
    if values is None:
        return settings.profiles[settings.default_profile] if settings.default_profile else _NOTHING_FURTHER
    for value in values:
        if value in settings.profiles:
            return settings.profiles[value]
    raise ClaimsNotAllowed(f"The claim {settings.claims.profile} of this token names no profile that there is.")


def _narrowed(allowed: tuple[str, ...], claimed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What both allow, where C{()} of C{allowed} is everything; C{None} where that is nothing.

    A claim that is a glob itself counts only where it stands among those that are allowed.
    """
    if claimed is None:
        return allowed
    if allowed and "*" not in allowed:
        claimed = tuple(each for each in claimed if each in allowed or _is_covered(each, allowed))
    return claimed or None


def _is_covered(name: str, patterns: tuple[str, ...]) -> bool:
    return not any(c in name for c in "*?[") and any(fnmatchcase(name, pattern) for pattern in patterns)
