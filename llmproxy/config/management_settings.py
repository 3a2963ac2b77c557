"""Who manages: people who sign in by OpenID Connect, and whoever bears a JWT of their provider.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from llmproxy.config.auth_settings import IdentityProviderSettings, Issuer, Names, Url
from llmproxy.config.types import Flag, Items, Name, Section, Text


class PersonClaims(Section):
    """The names of claims, as in `auth.oidc.claims`."""

    name: Text = "email"
    """What people call whoever signs in; without that claim, the subject."""
    role: Text = "groups"
    """Decides the role: text, or a list, of which the highest role counts."""
    projects: Text = ""
    """The ids of the projects that the person sees and changes, a list or text with spaces; empty: all. A person
    without the claim has none of them, unless the role is `admin`."""


class RoleValues(Section):
    """Which values of the role claim stand for which role. Whoever has none of them is refused."""

    admin: Names = ()
    """May do everything."""
    operator: Names = ()
    """May manage projects and tokens."""
    viewer: Names = ()
    """May look."""


class SignInSettings(Section):
    """People sign in to `/admin/` by an OpenID Connect provider, and its JWTs are good for `/manage` (docs/oidc.md).

    The client's secret is in `LLMPROXY_OIDC_CLIENT_SECRET` or a file that `…_FILE` names; a public client has none.
    """

    issuer: Issuer = ""
    """The issuer exactly as it names itself; empty: off. Plain `http://` only on this machine, or with `allow_http`."""
    client_id: Text = ""
    """This proxy's id as a client of the provider."""
    redirect_uri: Url = ""
    """The address of `/admin/oidc/callback` as browsers and the provider know it, exactly. Empty, with an `audience`:
    nobody signs in to the pages so, and only JWTs are taken."""
    audience: Names = ()
    """What `aud` of a JWT must name that comes as `Authorization: Bearer` to `/manage`, exactly: one of these. Empty:
    the `client_id`, which ID tokens name."""
    scopes: Annotated[tuple[Name, ...], Items] = ("openid", "profile", "email")
    """What is asked of the provider."""
    claims: PersonClaims = PersonClaims()
    roles: RoleValues = RoleValues()
    ca_file: Text = ""
    """Further certificate authorities to trust for the provider, a PEM file."""
    allow_http: Flag = False
    """Whether the provider may be reached without TLS over a network."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.issuer:
            return self
        self.provider()
        if self.redirect_uri or not self.audience:
            for name in ("client_id", "redirect_uri"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is missing")
            if not self.redirect_uri.endswith("/admin/oidc/callback"):
                raise ValueError("redirect_uri must end with /admin/oidc/callback")
        if "openid" not in self.scopes:
            raise ValueError("scopes must have openid")
        if not (self.roles.admin or self.roles.operator or self.roles.viewer):
            raise ValueError("roles is empty: nobody could sign in")
        return self

    @property
    def accepted_audience(self) -> tuple[str, ...]:
        """What C{aud} of a JWT must name, one of these, to manage by it."""
        return self.audience or (self.client_id,)

    def provider(self) -> IdentityProviderSettings:
        """How it is reached, and its JWTs are verified."""
        return IdentityProviderSettings(issuer=self.issuer, ca_file=self.ca_file, allow_http=self.allow_http)


class ManagementSettings(Section):
    """Who manages, beside the bearers of the management token and of management keys."""

    oidc: SignInSettings = SignInSettings()
