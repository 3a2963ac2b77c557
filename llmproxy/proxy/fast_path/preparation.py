"""Makes flows ready when the first direct request comes: what all of them have in common is found out once."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from llmproxy.http import body_hints, cors, credentials
from llmproxy.http.field_lines import FieldLines
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import MAX_PATH_BYTES, header_number, header_text
from llmproxy.proxy.fast_path.flow import FilledHead, Flow, KnownHead, Sending
from llmproxy.proxy.fast_path.prepared_flow import PreparedFlow, PreparedSending, RequestFacts
from llmproxy.proxy.pipeline import Pipeline

MAX_FACTS = 64  # of one flow that are kept
FACTS_BYTES, MAX_FACTS_BYTES = 512, 1024  # that each takes, besides the lines that tell it; and that these may have


def prepare(known: KnownHead, pipeline: Pipeline, accounting: Accounting) -> PreparedFlow | None:
    """The flow of a head, made ready; C{None} where it is good no more."""
    flow = known.flow
    session, route, dialect = flow.session, flow.route, flow.dialect
    grant, sending = session.entry(), None
    if grant is None:
        return None
    if flow.sending is not None:
        sending = _prepare_sending(flow, flow.sending, pipeline, accounting)
        if sending is None:
            return None
    needs = pipeline.bodies.needs(session.grant, route, flow.operation, flow.limits)
    timeouts, origins, told_by = route.api.timeouts, route.api.allowed_origins, _told_by(known, accounting)
    return PreparedFlow(
        model=route.model,
        grant=grant,
        expires_at=session.grant.expires_at,
        sending=sending,
        typed=None if dialect is None else dialect.typed,
        has_tier=dialect is not None and dialect.provider == "google",
        is_coded=b"content-encoding" in known.fields.names,
        is_policed=needs.policed,
        is_measured=needs.measured,
        is_read_whole=needs.policed or needs.measured or needs.injects or flow.limits is not None,
        wanted=needs.wanted.__getitem__,
        plain=needs.wanted.plain,
        may_be_injected=needs.injects,
        may_be_deferred=flow.operation.deferred_in_background,
        estimates_input=dialect is not None and dialect.takes,
        streams=route.stream or body_hints.expects_stream(route.query, known.fields),
        total=timeouts.request or inf,
        stream_total=timeouts.stream or inf,
        header_timeout=timeouts.response_header or inf,
        path=known.target.partition(b"?")[0][:MAX_PATH_BYTES].decode("ascii", "backslashreplace"),
        told_by=told_by,
        facts=None if told_by else _facts(known.fields, known, accounting),
        has_own_id=b"x-request-id" in known.fields.names,
        token=_token(known),
        own_cors=bool(origins),
        cors_lines=cors.response_lines(known.fields, origins) if origins else (),
    )


def _prepare_sending(
    flow: Flow, sending: Sending, pipeline: Pipeline, accounting: Accounting
) -> PreparedSending | None:
    """C{None} where its key is no longer that."""
    session, route = flow.session, flow.route
    keys = pipeline.key_entry(session.grant, route, sending.provider_keys)
    if keys is None:
        return None
    common = (session.grant.project_id, session.grant.token_id, route.api_name, route.endpoint)
    slots, uses = accounting.slots(session, route), session.constant_uses()
    sole = sending.hops[0] if len(sending.hops) == 1 else None
    return PreparedSending(sending.hops, sole, sending.group, keys, slots, uses, common)


def _token(known: KnownHead) -> bytes | None:
    """The token of its requests."""
    route = known.flow.route
    found = credentials.strip(known.fields, route.query, route.api.query_key, route.api.forward_cookies).token
    return None if found is None else found.encode("ascii")


def _told_by(known: KnownHead, accounting: Accounting) -> tuple[int, ...]:
    """The numbers of the holes from which something is recorded."""
    names = {b"user-agent", b"x-stainless-retry-count", *accounting.attributing_fields()}
    return tuple(number for number, (_, name) in enumerate(known.shape.holes) if name.lower() in names)


def request_facts(
    filled: FilledHead | None, known: KnownHead, prepared: PreparedFlow, accounting: Accounting
) -> RequestFacts:
    """What is recorded of a head in whose holes this stands."""
    if prepared.facts is not None or filled is None:
        return prepared.facts or _facts(known.fields, known, accounting)
    told = tuple([filled.holes[number] for number in prepared.told_by])
    facts = prepared.facts_told.get(told)
    if facts is None:
        facts, kept = _facts(filled.lines, known, accounting), prepared.facts_told
        if sum(map(len, told)) <= MAX_FACTS_BYTES:
            if len(kept) >= MAX_FACTS:
                known.grow(-_size_of(kept))
                kept.clear()
            kept[told] = facts
            known.grow(_size_of((told,)))
    return facts


def _size_of(kept: Iterable[tuple[bytes, ...]]) -> int:
    """Bytes that facts take which are kept by these lines."""
    return sum([FACTS_BYTES + sum(map(len, told)) for told in kept])


def _facts(lines: FieldLines, known: KnownHead, accounting: Accounting) -> RequestFacts:
    return RequestFacts(
        header_text(lines.value(b"user-agent")),
        header_number(lines.value(b"x-stainless-retry-count")),
        accounting.attribution_of(lines, known.flow.session.grant),
    )
