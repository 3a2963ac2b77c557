"""The fields of a request as its provider gets them."""

from __future__ import annotations

from llmproxy.http import fields
from llmproxy.proxy.context import RequestContext
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import Upstream


def outgoing_lines(
    context: RequestContext, upstream: Upstream, key: ProviderKey, *, is_uncoded: bool, client: str = ""
) -> list[bytes]:
    """The field lines of a request as they are sent to a provider with a key, but for those that frame its body.

    @param is_uncoded: Whether its response must not be in a coding: something is to be taken out of it.
    @param client: Its client's address, where the provider is told that.
    """
    lines = context.lines
    assert lines is not None
    if is_uncoded:
        lines = [*(line for line in lines if line[:16].lower() != b"accept-encoding:"), b"Accept-Encoding: identity"]
    return fields.outgoing(lines, host=upstream.origin.host_header, credential=key.line, client=client)
