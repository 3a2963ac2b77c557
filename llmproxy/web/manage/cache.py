"""C{/manage/cache}: what the cache holds, and how it is emptied."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from llmproxy.caching import CacheAdmin, PurgeSelector
from llmproxy.errors import NotFound
from llmproxy.errors.management import RoleNotAllowed
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import read
from llmproxy.web.manage.body_types import Body, Id, known_apis
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.respond import json_response

Target = Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]{0,8191}$")]


class CacheView(DeferredModel):
    """What the cache holds, and what it has done since the start."""

    backend: str
    scope: str = Field(description="Who may be given an answer: project, token, shared.")
    entries: int
    bytes: int
    max_bytes: int
    evicted: int = Field(description="Entries that had to go for want of room.")
    hits: int = Field(description="Requests answered from the cache, after revalidation or with others included.")
    misses: int
    bypass: int = Field(description="Requests that had nothing to do with the cache.")
    stores: int
    in_flight: int = Field(description="Calls to providers that further requests could join now.")


class Purged(DeferredModel):
    """How many entries were removed."""

    removed: int


class Purge(Body):
    """What is to be removed. What is left out means all of it; nothing at all needs C{all}."""

    all: bool = Field(False, description="Remove everything.")
    api: str | None = None
    project_id: Id | None = None
    token_id: Id | None = Field(None, description="With cache.scope token: whose answers.")
    path: Target | None = Field(None, description="Exactly this path and query, as clients send it to the API.")
    prefix: Target | None = Field(None, description="Every path and query that begins so.")
    method: Annotated[str, StringConstraints(pattern="^[A-Z-]{1,32}$")] | None = Field(
        None, description="With path: of this method only."
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="With path: exactly the request with these; those that providers act on count.",
    )
    body: str | None = Field(None, description="Likewise the request with this body.")

    @field_validator("api")
    @classmethod
    def _configured(cls, api: str | None, info: ValidationInfo) -> str | None:
        if api is not None:
            known_apis([api], info)
        return api

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        chosen = self.model_fields_set - {"all"}
        if self.all == bool(chosen):
            raise ValueError("say what to remove, or all: true and nothing else")
        if (self.path or self.prefix) and not self.api:
            raise ValueError("path and prefix need an api")
        if self.path and self.prefix:
            raise ValueError("path and prefix exclude each other")
        if self.token_id and not self.project_id:
            raise ValueError("token_id needs a project_id")
        if (self.method or self.headers or self.body is not None) and not self.path:
            raise ValueError("method, headers and body need a path")
        return self

    def selector(self) -> PurgeSelector:
        return PurgeSelector(
            api=self.api or "",
            project_id=self.project_id or "",
            token_id=self.token_id or "",
            path=self.path or "",
            prefix=self.prefix or "",
            method=self.method or ("POST" if self.body is not None else ""),
            headers=self.headers,
            body=self.body,
        )


class CacheStatus(Endpoint):
    path = "/manage/cache"

    @operation("GET", "Show what the cache holds and has done.", CacheView)
    async def get_cache(self, call: Call) -> BufferedResponse:
        admin = _admin(self)
        usage, counts = await admin.usage(), await self.context.counts()
        view = CacheView(
            backend=admin.backend,
            scope=admin.caching.state.scope,
            entries=usage.entries,
            bytes=usage.size,
            max_bytes=usage.limit,
            evicted=usage.evicted,
            hits=counts.cache_hits,
            misses=counts.cache_misses,
            bypass=counts.cache_bypass,
            stores=usage.stores,
            in_flight=usage.in_flight,
        )
        return json_response(view.model_dump())


class CachePurge(Endpoint):
    path = "/manage/cache/purge"

    @operation("POST", "Remove answers from the cache.", Purged, Purge, action="cache.purge")
    async def purge_cache(self, call: Call) -> BufferedResponse:
        admin = _admin(self)
        body = read(Purge, call.body, self.context.body_context())
        call.audit.project_id, call.audit.token_id = body.project_id or "", body.token_id or ""
        call.audit.details = body.model_dump(include={"all", "api", "path", "prefix", "method"}, exclude_none=True)
        if call.principal.projects is not None and body.project_id not in call.principal.projects:
            raise RoleNotAllowed("Name one of your projects as project_id.")
        removed = await admin.purge(body.selector())
        call.audit.details["removed"] = removed
        return json_response({"removed": removed})


def _admin(endpoint: Endpoint) -> CacheAdmin:
    if endpoint.context.cache is None:
        raise NotFound("There is no cache: cache.enabled is false.")
    return endpoint.context.cache
