"""Who may call: validators of tokens beside the store, and OpenID Connect.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llmproxy.access_policy import AccessPolicy
from llmproxy.config import addresses
from llmproxy.config.allowance_settings import AllowanceSettings
from llmproxy.config.plugin_settings import PluginSettings
from llmproxy.config.policy_settings import access_policy
from llmproxy.config.types import (
    Duration,
    Endpoints,
    Flag,
    Headers,
    HeaderValues,
    Items,
    Methods,
    Name,
    Networks,
    Pattern,
    Patterns,
    RequiredParams,
    Section,
    Text,
    Whole,
)

MAX_SKEW_SECONDS = 300.0
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
Algorithms = Annotated[tuple[Algorithm, ...], Items, Field(min_length=1)]
DEFAULT_ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                                             "ES512", "Ed25519", "EdDSA")  # fmt: skip
Names = Annotated[tuple[Name, ...], Items]
Issuer = Annotated[str, BeforeValidator(addresses.issuer)]
Url = Annotated[str, BeforeValidator(addresses.endpoint_url)]


def _bounded(skew: float) -> float:
    if skew > MAX_SKEW_SECONDS:
        raise ValueError(f"is too long (at most {MAX_SKEW_SECONDS:g}s)")
    return skew


class IdentityProviderSettings(Section):
    """An OpenID Connect provider, and how the JWTs that it signs are verified."""

    issuer: Issuer = ""
    """The issuer exactly as its JWTs name it in `iss`, such as `https://id.example.com/realms/main`; empty: off. Plain
    `http://` only on this machine, or with `allow_http`."""
    jwks_url: Url = ""
    """Where its keys are; empty: as `/.well-known/openid-configuration` below the issuer says."""
    algorithms: Algorithms = DEFAULT_ALGORITHMS
    """The signature algorithms that are accepted. `none` and those with a shared secret (`HS256`) are not to be had."""
    clock_skew: Annotated[Duration, AfterValidator(_bounded)] = 30.0
    """By how much the provider's clock may differ: for so long after `exp` a JWT is still good, and for so long before
    `nbf` and `iat` already. At most `5m`."""
    jwks_refresh: Duration = Field(default=300.0, gt=0)
    """How often the keys are fetched again, in the background. So long a key that was withdrawn may still count."""
    jwks_cooldown: Duration = Field(default=10.0, gt=0)
    """The least time between two fetches that a JWT with an unknown key id causes."""
    jwks_max_stale: Duration = 86400.0
    """How long keys are used while the provider cannot be reached; then 503 `identity_provider_unavailable`."""
    timeout: Duration = Field(default=5.0, gt=0)
    """For each request to the provider."""
    ca_file: Text = ""
    """Further certificate authorities to trust for the provider, a PEM file."""
    allow_http: Flag = False
    """Whether the provider may be reached without TLS over a network. Whoever can change what goes over that network
    can then make JWTs."""

    @model_validator(mode="after")
    def _by_tls(self) -> Self:
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url and not addresses.is_secure_or_local(url) and not self.allow_http:
                raise ValueError(f"{name} must begin with https:// (or set allow_http where the network is trusted)")
        return self


class GrantClaims(Section):
    """The names of claims. A dot leads into an object, as in `resource_access.llmproxy`, unless a claim has that very
    name."""

    project: Text = "llmproxy_project"
    """The project: its id, or a key of `projects`. The first of a list that is one."""
    profile: Text = "llmproxy_profile"
    """The name of a profile."""
    models: Text = "llmproxy_models"
    """The models that may be used, a list or text with spaces. Those of the profile that are not there are taken away;
    nothing is added to them."""
    apis: Text = "llmproxy_apis"
    """The APIs that may be called, likewise."""


class Profile(AllowanceSettings):
    """What the bearer of a JWT may do, and the limits of each subject; 0 and empty mean no limit."""

    apis: Names = ()
    """The APIs that may be called."""
    endpoints: Endpoints = ()
    """The endpoints, written as in `allowed_endpoints`."""
    models: Annotated[tuple[Pattern, ...], Items] = ()
    """The models, as globs."""
    ips: Networks = ()
    """The addresses and networks to call from."""
    methods: Methods = ()
    """The methods that may be used."""
    max_output_tokens: Whole = Field(default=0, ge=0)
    """Tokens of output that a request may ask for, as of an API; 0: any number."""
    param_whitelist: dict[Name, Patterns] = Field(default_factory=dict)
    """Parameters of the request body and the values (globs) that each may have, as of an API."""
    required_params: RequiredParams = ()
    """Parameters of the request body that must be there, as of an API."""
    required_headers: Headers = ()
    """Header fields that a request must have."""
    header_values: HeaderValues = Field(default_factory=dict)
    """Header fields and the values (globs) that each may have, as of an API."""

    def policy(self) -> AccessPolicy | None:
        """Which requests are allowed, beside those lists; C{None}: all."""
        return access_policy(self, self.methods)


class OidcSettings(IdentityProviderSettings):
    """JWTs of an OpenID Connect provider in place of issued tokens (docs/oidc.md)."""

    audience: Names = ()
    """What `aud` must name, exactly: one of these."""
    apis: Names = ()
    """The APIs that may be called by a JWT of this issuer; empty: all."""
    claims: GrantClaims = GrantClaims()
    require: dict[Name, Names] = Field(default={})
    """Claims, each with the values of which a JWT must have one: `groups: [llm-users]`. Otherwise 403."""
    projects: dict[Name, Name] = Field(default={})
    """Which project a value of the project claim stands for, by the project's id. Empty: the claim is the id."""
    default_project: Text = ""
    """The id of the project of JWTs without a project claim; empty: they are refused, 403."""
    profiles: dict[Name, Profile] = Field(default={})
    """What may be done and how much of it, by names that the profile claim refers to."""
    default_profile: Text = ""
    """The profile of JWTs without a profile claim; empty: they have no limits but those of their project and API."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer and not self.audience:
            raise ValueError("audience is missing: name what aud must say in a JWT that is meant for this proxy")
        if self.default_profile and self.default_profile not in self.profiles:
            raise ValueError(f'default_profile: there is no profile "{self.default_profile}"')
        return self


class TokenValidatorEntry(PluginSettings):
    """A validator of tokens that this proxy has not issued: the name of a plugin, and the settings of that plugin."""

    type: Name
    """The name of the plugin: `oidc` (with the settings of `auth.oidc`, for a further issuer), or one of your own. All
    other keys are the plugin's."""
    apis: Names = ()
    """The APIs that may be called by its tokens; empty: all."""


class AuthSettings(Section):
    """Whose tokens are accepted beside those that this proxy issues."""

    oidc: OidcSettings = OidcSettings()
    validators: Annotated[tuple[TokenValidatorEntry, ...], Items] = ()
    """Who is asked for tokens that are not ours, one after the other, until one knows the token."""


def unknown_apis(auth: AuthSettings, apis: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Names of APIs that are none, each with the setting that says so."""
    lists: list[tuple[str, tuple[str, ...]]] = [("auth.oidc.apis", auth.oidc.apis)]
    lists += [(f"auth.oidc.profiles.{name}.apis", profile.apis) for name, profile in auth.oidc.profiles.items()]
    lists += [(f"auth.validators[{number}].apis", entry.apis) for number, entry in enumerate(auth.validators)]
    for where, names in lists:
        yield from ((where, name) for name in names if name not in apis)
