"""Policies in the forms of projects and tokens, and as facts beside them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llmproxy.web.admin.pages.forms import number, words


class PolicyField(NamedTuple):
    """A rule in a form.

    @ivar kind: How it is written: C{words}, C{endpoints} (each may begin with a method), C{values} (a line each:
        C{name=glob}) or a C{number}.
    @ivar hint: An example.
    """

    name: str
    label: str
    hint: str
    kind: Literal["words", "endpoints", "values", "number"] = "words"


POLICY_FIELDS = (
    PolicyField("apis", "APIs", "openai, anthropic"),
    PolicyField("models", "Models", "gpt-4.1-*, claude-*"),
    PolicyField("endpoints", "Endpoints", "/v1/chat/completions, GET /v1/models", "endpoints"),
    PolicyField("methods", "Methods", "GET, POST"),
    PolicyField("ips", "IPs", "10.0.0.0/8, 192.0.2.7"),
    PolicyField("max_output_tokens", "Output tokens at most", "4096", "number"),
    PolicyField("required_params", "Required parameters", "user, max_tokens|max_completion_tokens"),
    PolicyField("required_headers", "Required header fields", "X-Team"),
    PolicyField("param_whitelist", "Parameters may be", "temperature=0.5", "values"),
    PolicyField("header_values", "Header fields may be", "X-Team=core-*", "values"),
)
_ENDPOINT = re.compile(r"(?:[A-Z][A-Z-]* +)?[^\s,]+")


class PolicyInput(NamedTuple):
    """A rule of a form, as it is filled in."""

    field: PolicyField
    text: str


def policy_values(form: Mapping[str, str]) -> dict[str, Any]:
    """The rules of a form as the management API takes them: what is empty lifts one."""
    return {field.name: _read(field, form[field.name]) for field in POLICY_FIELDS if field.name in form}


def policy_inputs(there: Mapping[str, Any], form: Mapping[str, str]) -> list[PolicyInput]:
    """The form for what is there, a project or a token; what was sent and refused stays as it was written."""
    return [
        PolicyInput(field, form[field.name] if field.name in form else policy_text(field, there.get(field.name)))
        for field in POLICY_FIELDS
    ]


def policy_facts(there: Mapping[str, Any], always: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Label and text of each rule that is set.

    @param always: Those that are told where they are not set, too.
    """
    shown = [(field, policy_text(field, there.get(field.name)).replace("\n", ", ")) for field in POLICY_FIELDS]
    return [(field.label, text or "all") for field, text in shown if text or field.name in always]


def policy_text(field: PolicyField, value: Any) -> str:
    """As L{policy_values} reads it."""
    if field.kind == "values":
        return "\n".join(f"{name}={glob}" for name, globs in (value or {}).items() for glob in globs)
    if field.kind == "number":
        return "" if value is None else str(value)
    return ", ".join(value or ())


def _read(field: PolicyField, text: str) -> Any:
    if field.kind == "number":
        return number(text)
    if field.kind == "endpoints":
        return [" ".join(each.split()) for each in _ENDPOINT.findall(text)]
    if field.kind == "words":
        return words(text)
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip():
            name, _, glob = line.partition("=")
            values.setdefault(name.strip(), []).append(glob.strip())
    return values
