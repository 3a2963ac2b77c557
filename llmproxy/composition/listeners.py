"""Where the daemon listens, and what is served there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.web.resource import IResource

from llmproxy.brief_record import parts_of
from llmproxy.composition.workers import WorkerViews
from llmproxy.config.model import Server
from llmproxy.http.forwarded import TrustedProxies
from llmproxy.model import RequestRecord
from llmproxy.process.daemon import Daemon
from llmproxy.proxy.reporting import Observer
from llmproxy.web import ops
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.root import Root
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.parser import FieldNames, MessageLimits
from llmproxy.wire.server.server_limits import ServerLimits
from llmproxy.wire.server.site import Site
from llmproxy.wire.write_coalescing import WriteCoalescer


def listen(
    daemon: Daemon,
    proxy: IResource,
    auth: ManagementAuth,
    manage: IResource,
    admin: IResource,
    views: WorkerViews,
    site: Callable[[Root], Site],
) -> None:
    """Have the daemon serve the public listeners, and those for management and metrics where these have their own.

    @param auth: Lets in who may manage.
    @param site: Makes the site of a tree of resources.
    """
    server = daemon.settings.server
    pages = partial(ops.pages, views.render, views.checks)
    own_admin, own_metrics = server.admin_listen, server.metrics_listen
    public_pages = pages() if server.public_metrics else pages(admit=auth.admission("get_metrics"))
    public = Root(
        proxy=proxy,
        manage=None if own_admin else manage,
        admin=None if own_admin else admin,
        ops=None if own_metrics else public_pages,
    )
    daemon.serve(server.listen, site(public))
    if own_admin:
        daemon.serve(own_admin, site(Root(manage=manage, admin=admin)))
    if own_metrics:
        daemon.serve(own_metrics, site(Root(ops=pages())))


def make_site(
    root: Root,
    server: Server,
    reactor: Any,
    coalescer: WriteCoalescer,
    descriptors: Descriptors,
    buffers: Buffers,
    observers: Sequence[Observer],
    now: Callable[[], float],
) -> Site:
    """The site of a tree of resources, with the limits that the settings name.

    @param observers: Called with requests that the wire refuses, as of all others.
    """
    return Site(
        root,
        reactor=reactor,
        limits=ServerLimits(
            messages=MessageLimits(
                head=server.max_head_bytes,
                body=server.max_request_bytes,
                names=FieldNames(frozenset(name.encode() for name in server.underscores_in_headers)),
            ),
            head_timeout=server.head_timeout,
            body_timeout=server.body_timeout,
            keepalive_timeout=server.keepalive_timeout,
            send_timeout=server.send_timeout,
            min_send_rate=server.min_send_rate,
            max_connections=server.max_connections,
            max_connections_per_address=server.max_connections_per_address,
        ),
        is_shared=partial(_is_shared, TrustedProxies(server.trusted_proxies)),
        on_refused=partial(_malformed, observers, now),
        coalescer=coalescer,
        descriptors=descriptors,
        buffers=buffers,
    )


def _malformed(
    observers: Sequence[Observer], now: Callable[[], float], status: int, code: str, remote: str, request_id: str
) -> None:
    """What the wire refuses is not a request that a resource could tell of; it is counted and logged all the same."""
    record = RequestRecord(
        request_id=request_id,
        started_at=now(),
        duration=0.0,
        method="",
        path="",
        status=status,
        outcome="refused",
        error=code,
        client=remote,
    )
    for observe in observers:
        observe([parts_of(record)])


def _is_shared(trusted: TrustedProxies, remote: str) -> bool:
    """Whether a peer brings the connections of many clients, so that they are not to be counted as one's."""
    return remote in ("", "unix") or remote in trusted
