"""The management API and the admin pages, read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import IResource

from llmproxy.base.late_imports import LateImports
from llmproxy.http.error_body import PROBLEM
from llmproxy.web.late import LateResource

_MANAGE = ("llmproxy.web.manage.tree",)
_ADMIN = (*_MANAGE, "llmproxy.web.admin.tree", "llmproxy.web.admin.pages")


def late_pages(
    imports: LateImports, manage: Callable[[], IResource], admin: Callable[[], IResource]
) -> tuple[LateResource, LateResource]:
    """Both of them: they take 10 MB and a quarter of a second, and in most processes nobody asks for them.

    @param manage: Makes the API, C{admin} the pages, once their modules are imported.
    """

    async def loaded_manage() -> IResource:
        await imports.load(_MANAGE)
        return manage()

    async def loaded_admin() -> IResource:
        await imports.load(_ADMIN)
        return admin()

    return LateResource(loaded_manage, PROBLEM), LateResource(loaded_admin)
