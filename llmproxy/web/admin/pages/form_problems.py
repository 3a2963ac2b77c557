"""What is wrong with a form, in the words of the form. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from llmproxy.errors import FieldProblem, Invalid, ProxyError
from llmproxy.web.admin.pages.forms import LIMIT_FIELDS
from llmproxy.web.admin.pages.policies import POLICY_FIELDS

# What a field is called that is in no list of fields, and how it is written.
_OTHERS: Mapping[str, tuple[str, str]] = {
    "name": ("Name", ""),
    "expires_in": ("Expires in", "30d, 12h"),
    "max_requests": ("Requests in all", "1000"),
    "grace": ("The present secret stays valid for", "24h, 7d"),
    "labels": ("Labels", "batch, team:search"),
    "metadata": ("Metadata", "owner=ada, a line each"),
    "api_keys": ("Key", ""),
    "group_id": ("Group", ""),
    "parent_id": ("Belongs to", ""),
    "role": ("Role", ""),
    "projects": ("Only these projects", ""),
}
_FIELDS: Mapping[str, tuple[str, str]] = {
    **_OTHERS,
    **{each.name: (each.label, each.hint) for each in LIMIT_FIELDS},
    **{each.name: (each.label, each.hint) for each in POLICY_FIELDS},
}
_AT_LEAST, _AT_MOST = "Input should be greater than or equal to ", "Input should be less than or equal to "


def problem_text(error: ProxyError) -> str:
    """Each field that is wrong by its label, with an example of how it is written; else what the API says."""
    problems = error.problems if isinstance(error, Invalid) else ()
    said = dict.fromkeys(map(_said, problems))
    if not said or None in said:
        return error.message
    return f"Nothing was saved. {' '.join(str(each) for each in said)}"


def _said(problem: FieldProblem) -> str | None:
    """One problem; C{None} where it is of no field of a form."""
    name = unquote(problem.name).removeprefix("#/").partition("/")[0]
    if problem.place != "pointer" or name not in _FIELDS:
        return None
    label, hint = _FIELDS[name]
    return f"{label}: {_detail(problem.detail, hint).rstrip('.')}."


def _detail(detail: str, hint: str) -> str:
    """Without patterns, and without the words of JSON."""
    example = f", such as {hint}" if hint else ""
    if detail.startswith("String should match pattern"):
        return f"must be written otherwise{example}"
    if detail.startswith("Input should be a valid integer"):
        return f"must be a whole number{example}"
    for begun, word in ((_AT_LEAST, "least"), (_AT_MOST, "most")):
        if detail.startswith(begun):
            return f"must be at {word} {int(detail.removeprefix(begun)):,}"
    if found := re.match(r"String should have at (least|most) ([0-9]+) character", detail):
        return "must not be empty" if found[1] == "least" else f"must have at most {int(found[2]):,} characters"
    return detail
