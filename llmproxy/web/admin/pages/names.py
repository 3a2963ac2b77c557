"""What projects, groups and tokens are called that a page knows by their ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.web.admin.visit import Visit
from llmproxy.web.manage.paging import ID, MAX_PAGE_SIZE


async def project_names(visit: Visit, ids: Sequence[str]) -> dict[str, str]:
    """The names of these projects; the id of one that is not there any more."""
    return await _names(visit, "/manage/projects", ids)


async def group_names(visit: Visit, ids: Sequence[str]) -> dict[str, str]:
    """Likewise of groups; their ids for who may not see groups."""
    if not visit.principal.may("list_groups"):
        return {each: each for each in ids}
    return await _names(visit, "/manage/groups", ids)


async def token_names(visit: Visit, ids: Sequence[str]) -> dict[str, str]:
    """The names of these tokens; the beginning of the id of one that has none, or is none of this store."""
    found = await _names(visit, "/manage/tokens", ids)
    return {each: name if name and name != each else each[:12] for each, name in found.items()}


async def actor_names(visit: Visit, actors: Sequence[str]) -> dict[str, str]:
    """What people call these actors of the audit log; those who say it themselves, such as C{proxy}, are not in it.

    A management key's name is told to whoever may list the keys.
    """
    names = {f"token:{each}": name for each, name in (await token_names(visit, _ids(actors, "token"))).items()}
    if (keys := _ids(actors, "key")) and visit.principal.may("list_keys"):
        listed = await visit.api.get("/manage/keys", limit=MAX_PAGE_SIZE)
        names.update((f"key:{each['id']}", each["name"]) for each in listed["data"] if each["id"] in keys)
    return names


def written_names(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the actors of these entries of the audit log were called then, by actor."""
    return {each["actor"]: name for each in reversed(entries) if (name := str(each["details"].get("actor_name", "")))}


def _ids(actors: Sequence[str], kind: str) -> list[str]:
    return [each.partition(":")[2] for each in dict.fromkeys(actors) if each.startswith(f"{kind}:")]


async def _names(visit: Visit, path: str, ids: Sequence[str]) -> dict[str, str]:
    wanted = [each for each in dict.fromkeys(ids) if re.fullmatch(ID, each)][:MAX_PAGE_SIZE]
    names = {each: each for each in ids if each}
    if wanted:
        found = await visit.api.get(path, id=",".join(wanted), limit=len(wanted))
        names.update((each["id"], each["name"]) for each in found["data"])
    return names
