"""Makes flows ready when the first direct request comes: what all of them have in common is found out once."""

from __future__ import annotations

from llmproxy.http import body_hints
from llmproxy.http.field_lines import FieldLines
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import MAX_PATH_BYTES, header_number, header_text
from llmproxy.proxy.fast_path.flow import KnownHead, Sending
from llmproxy.proxy.fast_path.prepared_flow import PreparedFlow, RequestFacts
from llmproxy.proxy.pipeline import Pipeline


def prepare(known: KnownHead, pipeline: Pipeline, accounting: Accounting) -> PreparedFlow:
    """The flow of a head, made ready."""
    flow = known.flow
    way, route, dialect = flow.way, flow.route, flow.dialect
    needs = pipeline.bodies.needs(flow.session.grant, route, flow.operation, flow.limits)
    outgoing = key = b""
    if isinstance(way, Sending):
        key = way.provider_keys[0].value
    if isinstance(way, Sending) and not way.outgoing.filled:
        outgoing = b"\r\n".join([*way.outgoing.lines, b"Content-Length: "])
    timeouts = route.api.timeouts
    return PreparedFlow(
        outgoing,
        key,
        None if dialect is None else dialect.typed,
        dialect is not None and dialect.provider == "google",
        b"content-encoding" in known.fields.names,
        needs.policed,
        needs.measured,
        needs.policed or needs.measured or flow.limits is not None,
        needs.wanted,
        dialect is not None and dialect.takes,
        route.stream or body_hints.expects_stream(route.query, known.fields),
        timeouts.request,
        timeouts.stream,
        timeouts.response_header,
        known.target.partition(b"?")[0][:MAX_PATH_BYTES].decode("ascii", "backslashreplace"),
        request_facts(known.fields, known, accounting) if len(known.shape.holes) == 1 else None,
    )


def request_facts(lines: FieldLines, known: KnownHead, accounting: Accounting) -> RequestFacts:
    """What is recorded of a head with these lines."""
    return RequestFacts(
        header_text(lines.value(b"user-agent")),
        header_number(lines.value(b"x-stainless-retry-count")),
        accounting.attribution_of(lines, known.flow.session.grant),
    )
