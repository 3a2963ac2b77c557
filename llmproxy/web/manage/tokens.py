"""C{/manage/tokens}: what clients present instead of a provider key."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Conflict, NotFound
from llmproxy.model import Token
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import Notes, TokenChange, TokenCreate, TokenRotate, read
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.limit_bodies import Limits
from llmproxy.web.manage.paging import (
    FILTER_PARAMETERS,
    PAGE_PARAMETERS,
    ids,
    list_filter,
    list_response,
    page,
    query,
)
from llmproxy.web.manage.policy_bodies import Policies, check_endpoints
from llmproxy.web.manage.preconditions import etag_line
from llmproxy.web.manage.project_filter import PROJECT_PARAMETERS, wanted_projects
from llmproxy.web.manage.roles import hidden
from llmproxy.web.manage.views import TokenIssued, TokenList, TokenRotated, TokenView, changes_between, token_json
from llmproxy.web.respond import json_response

OWN_LISTS = frozenset({"apis", "endpoints", "models", "ips"})  # of a token, beside its policy
EXPIRY_FIELDS = frozenset({"expires_in", "duration_minutes", "expires_at"})


class TokenCollection(Endpoint):
    path = "/manage/tokens"

    @operation(
        "GET",
        "List tokens, oldest first.",
        TokenList,
        query=("id", *PROJECT_PARAMETERS, *FILTER_PARAMETERS, *PAGE_PARAMETERS),
    )
    async def list_tokens(self, call: Call) -> BufferedResponse:
        asked = query(call.uri, call.operation.query)
        projects = await wanted_projects(self.context.projects, call.principal, asked)
        wanted = list_filter(call.uri, asked, projects)._replace(ids=ids(asked))
        await self.context.usage.latest()
        found = await self.context.tokens.token_page(page(asked), wanted)
        return await list_response(found, partial(token_json, now=self.context.now()), self.context.clock)

    @operation("POST", "Issue a token.", TokenIssued, TokenCreate, 201, action="token.create")
    async def create_token(self, call: Call) -> BufferedResponse:
        body = read(TokenCreate, call.body, self.context.body_context())
        call.audit.project_id = body.project_id
        call.audit.details = {"given": sorted(body.model_fields_set)}
        if not call.principal.sees(body.project_id):
            raise hidden("project", body.project_id)
        check_endpoints(body.endpoints, body.apis, self.context.apis)
        token, secret = await self.context.tokens.create_token(
            Token(
                id="",
                project_id=body.project_id,
                name=body.name or "",
                expires_at=body.expiry(self.context.now()),
                max_requests=body.max_requests,
                apis=body.apis,
                endpoints=body.endpoints,
                models=body.models,
                ips=body.ips,
                policy=body.policy(beside=OWN_LISTS),
                allowance=body.limits(),
                **body.notes(),
            )
        )
        call.audit.token_id = token.id
        answer = token_json(token, self.context.now()) | {"token": secret}
        location = b"Location: /manage/tokens/" + token.id.encode("ascii")
        return json_response(answer, 201, [location, etag_line(token.revision)])


class TokenItem(Endpoint):
    path = "/manage/tokens/{id}"

    @operation("GET", "Show what is known of a token.", TokenView)
    async def get_token(self, call: Call) -> BufferedResponse:
        await self.context.usage.latest()
        token = await self.context.tokens.get_token(call.id)
        standing = await self.context.standing("token", token.id, token.allowance)
        return json_response(token_json(token, self.context.now(), standing), 200, [etag_line(token.revision)])

    @operation("PATCH", "Change what a token allows.", TokenView, TokenChange, action="token.update")
    async def update_token(self, call: Call) -> BufferedResponse:
        call.audit.token_id = call.id
        body = read(TokenChange, call.body, self.context.body_context())
        call.audit.details = {"changed": sorted(body.model_fields_set)}
        changed = await self.context.altered(partial(self._update, call, body))
        return json_response(token_json(changed, self.context.now()), 200, [etag_line(changed.revision)])

    @operation("DELETE", "Revoke a token, for good.", status=204, action="token.revoke")
    async def revoke_token(self, call: Call) -> BufferedResponse:
        call.audit.token_id = call.id
        if call.preconditions.if_match:
            call.preconditions.check((await self.context.tokens.get_token(call.id)).revision)
        async with self.context.in_force("token", call.id), self.context.change():
            token = await self.context.tokens.deactivate_token(call.id)
        call.audit.project_id = token.project_id
        return BufferedResponse(204, lines=(b"Cache-Control: no-store",))

    async def _update(self, call: Call, body: TokenChange) -> Token:
        token = await self.context.tokens.get_token(call.id)
        call.audit.project_id = token.project_id
        call.preconditions.check(token.revision)
        if not token.active:
            raise Conflict("This token has been revoked, for good. Issue a new one.")
        changed = self._changed(token, body)
        if body.model_fields_set & {"endpoints", "apis"}:
            check_endpoints(changed.endpoints, changed.apis, self.context.apis)
        stored = await self.context.tokens.update_token(changed)
        now = self.context.now()
        call.audit.details["changes"] = changes_between(token_json(token, now), token_json(stored, now))
        return stored

    def _changed(self, token: Token, body: TokenChange) -> Token:
        elsewhere = (
            EXPIRY_FIELDS
            | Limits.model_fields.keys()
            | Notes.model_fields.keys()
            | (Policies.model_fields.keys() - OWN_LISTS)
        )
        given = body.model_dump(include=body.model_fields_set - elsewhere) | body.notes()
        given["allowance"] = body.limits(token.allowance)
        given["policy"] = body.policy(token.policy, beside=OWN_LISTS)
        if "name" in given:
            given["name"] = given["name"] or ""
        if body.model_fields_set & EXPIRY_FIELDS:
            given["expires_at"] = body.expiry(self.context.now())
        return replace(token, **given)


class TokenSecretRotation(Endpoint):
    path = "/manage/tokens/{id}/rotate"

    @operation(
        "POST", "Give a token another secret; both are valid for a while.", TokenRotated, TokenRotate, 201,
        action="token.rotate",
    )  # fmt: skip
    async def rotate_token(self, call: Call) -> BufferedResponse:
        call.audit.token_id = call.id
        body = read(TokenRotate, call.body or b"{}", self.context.body_context())
        if self.context.rotation is None:
            raise NotFound("Tokens cannot be rotated here.")
        token = await self.context.tokens.get_token(call.id)
        call.audit.project_id = token.project_id
        async with self.context.change():
            rotated, secret, until = await self.context.rotation.rotate_token(call.id, body.grace_seconds)
        call.audit.details = {"grace": body.grace, "previous_expires_at": rfc3339(until)}
        answer = token_json(rotated, self.context.now()) | {"token": secret, "previous_expires_at": rfc3339(until)}
        return json_response(answer, 201, [etag_line(rotated.revision)])
