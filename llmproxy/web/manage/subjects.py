"""C{/manage/subjects}: those whom another issuer knows, and whose JWTs are refused here."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from llmproxy.auth.oidc.subjects import MAX_SUBJECT_CHARACTERS, issuer_prefix, subject_id
from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid, NotFound, ProxyError
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.store.revoked_subjects import SubjectRevocation
from llmproxy.web.manage.audit_trail import AuditDraft
from llmproxy.web.manage.bodies import read
from llmproxy.web.manage.body_types import Body, Time, printable
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.paging import PAGE_PARAMETERS, list_response, page, query
from llmproxy.web.manage.stores import RevokedSubjects
from llmproxy.web.manage.views import Time as ShownTime
from llmproxy.web.respond import json_response

LAST_SECOND = 2.0**37  # since the epoch: no clock of an issuer shows so much
_SUBJECT = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SUBJECT_CHARACTERS), AfterValidator(printable)]


def _instant(at: datetime) -> datetime:
    try:
        sensible = 0 <= at.timestamp() < LAST_SECOND
    except OverflowError:
        sensible = False
    if not sensible:
        raise ValueError("must be a time from 1970 on")
    return at


class SubjectName(Body):
    """A subject: by its id, or as its issuer calls it."""

    id: _SUBJECT | None = Field(
        None, description="As ledger and audit log have it: oidc:5f1e0a3b:ada. Or issuer and sub."
    )
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        None, description="As the JWT says in iss."
    )
    sub: _SUBJECT | None = Field(None, description="As the JWT says in sub.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.id is None) is (self.sub is None) or (self.issuer is None) is not (self.sub is None):
            raise ValueError("give id, or issuer and sub")
        return self


class SubjectRevoke(SubjectName):
    """Whose JWTs are to be refused from now on, and which of them."""

    issued_before: Annotated[Time, AfterValidator(_instant)] | None = Field(
        None, description="Only JWTs that were issued before this, and those that do not say when; null: all."
    )
    reason: Annotated[str, StringConstraints(max_length=200), AfterValidator(printable)] | None = Field(
        None, description="Why, for whoever reads the list."
    )


class SubjectView(DeferredModel):
    """That JWTs of a subject are refused."""

    id: str = Field(description="The subject, as ledger and audit log have it.")
    issued_before: ShownTime | None = Field(description="Only JWTs that were issued before this; null: all.")
    revoked_at: ShownTime
    reason: str | None


class SubjectList(DeferredModel):
    """One page of the subjects that are refused, oldest first."""

    data: list[SubjectView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class SubjectEndpoint(Endpoint):
    """What all have in common."""

    @property
    def subjects(self) -> RevokedSubjects:
        if self.context.subjects is None:
            raise NotFound("There are no subjects here.")
        return self.context.subjects

    def subject(self, name: SubjectName) -> str:
        """Its id; L{Invalid} where no issuer that is trusted here can have such a subject: a mistyped one that was
        taken would revoke nothing.
        """
        issuers = self.context.issuers
        if name.issuer is not None:
            if name.issuer not in issuers:
                raise Invalid.part(
                    "pointer",
                    "issuer",
                    f"is not one whose JWTs are taken here ({', '.join(sorted(issuers)) or 'none'}).",
                )
            return subject_id({"iss": name.issuer, "sub": name.sub})
        known = str(name.id)
        if known.startswith("oidc:") and not known.startswith(tuple(map(issuer_prefix, issuers))):
            raise Invalid.part("pointer", "id", "its issuer is not one whose JWTs are taken here.")
        return known

    def intended(self, call: Call) -> AuditDraft:
        """Under the subject's id, which the body may give as issuer and sub."""
        draft = super().intended(call)
        with suppress(ProxyError):  # the response says what is wrong with it
            kind = SubjectRevoke if call.operation.body is SubjectRevoke else SubjectName
            draft.token_id = self.subject(read(kind, call.body, self.context.body_context()))
            draft.details["subject"] = draft.token_id
        return draft


class SubjectCollection(SubjectEndpoint):
    path = "/manage/subjects"

    @operation("GET", "List the subjects whose JWTs are refused, oldest first.", SubjectList, query=PAGE_PARAMETERS)
    async def list_subjects(self, call: Call) -> BufferedResponse:
        part = page(query(call.uri, call.operation.query))
        return await list_response(await self.subjects.page(part), subject_json, self.context.clock)


class SubjectRevocationEndpoint(SubjectEndpoint):
    path = "/manage/subjects/revoke"

    @operation("POST", "Refuse the JWTs of a subject from now on.", SubjectView, SubjectRevoke, action="subject.revoke")
    async def revoke_subject(self, call: Call) -> BufferedResponse:
        body = read(SubjectRevoke, call.body, self.context.body_context())
        before = None if body.issued_before is None else body.issued_before.timestamp()
        wanted = SubjectRevocation(self.subject(body), before, reason=body.reason or "")
        call.audit.token_id = wanted.id
        call.audit.details = {"subject": wanted.id, "reason": wanted.reason}
        if before is not None:
            call.audit.details["issued_before"] = rfc3339(before)
        # What is in force while the store is away is about all of them: newer ones are not to suffer from that.
        in_force = self.context.in_force("subject", wanted.id) if before is None else nullcontext()
        async with in_force, self.context.change():
            return json_response(subject_json(await self.subjects.revoke(wanted)))


class SubjectRestoration(SubjectEndpoint):
    path = "/manage/subjects/restore"

    @operation("POST", "Take the JWTs of a subject again.", SubjectView, SubjectName, action="subject.restore")
    async def restore_subject(self, call: Call) -> BufferedResponse:
        subject = self.subject(read(SubjectName, call.body, self.context.body_context()))
        call.audit.token_id = subject
        call.audit.details = {"subject": subject}
        async with self.context.change():
            restored = await self.subjects.restore(subject)
            if self.context.revocations is not None:
                self.context.revocations.withdraw("subject", subject)
        return json_response(subject_json(restored))


def subject_json(revocation: SubjectRevocation) -> dict[str, object]:
    """L{SubjectView} of it."""
    before = revocation.issued_before
    return SubjectView(
        id=revocation.id,
        issued_before=None if before is None else rfc3339(before),
        revoked_at=rfc3339(revocation.revoked_at),
        reason=revocation.reason or None,
    ).model_dump()
