"""Groups of projects, as the management API knows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llmproxy.base.coroutines import deferred
from llmproxy.model import Group, Page, PageRequest
from llmproxy.store import group_tree
from llmproxy.store.store import Store


class GroupTable:
    """Keeps groups in the store's database; all that hangs on a group's limits is told of a change.

    @param now: Seconds since the epoch.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    @deferred
    async def create_group(self, group: Group) -> Group:
        return await self._store.change_all(partial(group_tree.create, group=group, now=self._now()))

    @deferred
    async def get_group(self, group_id: str) -> Group:
        return await self._store.report(partial(group_tree.get, group_id=group_id))

    @deferred
    async def group_page(
        self, request: PageRequest, search: str = "", ids: tuple[str, ...] | None = None
    ) -> Page[Group]:
        return await self._store.report(partial(group_tree.page, request=request, search=search, ids=ids))

    @deferred
    async def update_group(self, group: Group) -> Group:
        return await self._store.change_all(partial(group_tree.replace, group=group, now=self._now()))

    @deferred
    async def delete_group(self, group_id: str, revision: int = 0) -> None:
        await self._store.change_all(partial(group_tree.delete, group_id=group_id, revision=revision))
