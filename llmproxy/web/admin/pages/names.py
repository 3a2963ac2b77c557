"""What projects and tokens are called that a page knows by their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmproxy.web.admin.visit import Visit
from llmproxy.web.manage.paging import ID, MAX_PAGE_SIZE


async def project_names(visit: Visit, ids: Sequence[str]) -> dict[str, str]:
    """The names of these projects; the id of one that is not there any more."""
    return await _names(visit, "/manage/projects", ids)


async def token_names(visit: Visit, ids: Sequence[str]) -> dict[str, str]:
    """The names of these tokens; the beginning of the id of one that has none, or is none of this store."""
    found = await _names(visit, "/manage/tokens", ids)
    return {each: name if name and name != each else each[:12] for each, name in found.items()}


async def _names(visit: Visit, path: str, ids: Sequence[str]) -> dict[str, str]:
    wanted = [each for each in dict.fromkeys(ids) if re.fullmatch(ID, each)][:MAX_PAGE_SIZE]
    names = {each: each for each in ids if each}
    if wanted:
        found = await visit.api.get(path, id=",".join(wanted), limit=len(wanted))
        names.update((each["id"], each["name"]) for each in found["data"])
    return names
