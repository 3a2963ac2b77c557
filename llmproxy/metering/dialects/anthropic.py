"""Anthropic's API: messages, their count, batches of them.

Facts: C{platform.claude.com/docs/en/api/messages} and C{platform.claude.com/docs/en/about-claude/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import (
    MediaTokens,
    Members,
    ProviderOperation,
    Units,
    unknown_units,
    whole_number,
)
from llmproxy.metering.dialects.reported_usage import Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, number, without_doubtful

# Pictures: width x height / 750, at most 1,568 tokens, and 4,784 in high resolution (Opus 4.7 and later); a page of a
# PDF is its text, 1,500 to 3,000 tokens, and its picture. Guides "Vision" and "PDF support", November 2026.
MEDIA = MediaTokens(image=4784, page=4600, audio_second=32, video_second=300)

# Models that ran in the United States alone cost a tenth more, by tokens of all kinds. Price page, section "Data
# residency pricing"; guide "Data residency".
GEO_FACTORS = {"us": 1.1, "global": 1.0, "not_available": 1.0, "": 1.0}

MAX_SEARCHES = 10  # where a search tool sets no C{max_uses}
_TOOLS = {"web_search_": "web_searches", "code_execution_": "code_executions", "advisor_": "advice"}


def max_tool_calls(model: str, members: Members) -> Units | None:
    """Calls of the provider's own tools that a request allows, at most.

    Searches are billed by the call, fetches are not. A container is billed by the hour unless a search or a fetch is
    offered too, and an advisor at another model's price: neither has a bound.
    """
    units: Units = {}
    tools = members.get("tools")
    kinds = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    free = any(isinstance(kind, str) and kind.startswith(("web_search_", "web_fetch_")) for kind in kinds)
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        unit = next((unit for start, unit in _TOOLS.items() if isinstance(kind, str) and kind.startswith(start)), None)
        if unit == "web_searches":
            most = whole_number(tool.get("max_uses"))
            units[unit] = units.get(unit, 0) + (MAX_SEARCHES if most is None else most)
        elif unit is not None and not (unit == "code_executions" and free):
            units[unit] = 1
    return units


def final(said: Counts) -> bool | None:
    """A stream begins with a message that is not made yet."""
    return False if said.get("type") == "message_start" else None


def usage_by_model(usage: Counts) -> list[tuple[str, Counts]]:
    """The parts of a message that compacted its context, asked an advisor, or was answered by another model.

    C{usage} tells of neither a compaction nor an advisor: they are in C{iterations} alone, each with the model that
    worked, where that is another one. Guides "Compaction" and "Advisor tool"; anthropic-python 2.12, C{BetaUsage}.
    """
    listed = usage.get("iterations")
    if not isinstance(listed, list) or not 0 < len(listed) < 1000:
        return []
    parts = [(name if isinstance(name := each.get("model"), str) else "", each) for each in listed if _counts(each)]
    own = [each for _, each in parts if each.get("type") == "message"]
    if len(parts) == len(own) or len(parts) != len(listed):
        return []  # then the members beside tell all
    return parts


def _counts(part: object) -> bool:
    return isinstance(part, dict) and None not in (number(part.get("input_tokens")), number(part.get("output_tokens")))


def with_containers(units: Units, usage: Counts) -> Units:
    """A container is free where a search or a fetch was made with it. Price page, "Code execution tool".

    A message has both counts, and what was cached beside them.
    """
    without_doubtful(units, usage, input_tokens="input_tokens", output_tokens="output_tokens")
    used = usage.get("server_tool_use")
    ran = number(used.get("code_execution_requests")) if isinstance(used, dict) else None
    if ran and isinstance(used, dict) and not (used.get("web_search_requests") or used.get("web_fetch_requests")):
        units["code_executions"] = ran
    return units


SHAPES = (
    Shape(
        "messages",
        has_any("input_tokens", "output_tokens"),
        (("anthropic", "default"),),
        correct=with_containers,
        parts=usage_by_model,
    ),
)

SYNTAX = UsageSyntax(("usage",), ("message",), final=final)


def deferred_result_id(answer: Counts) -> str:
    """The id of a batch that a response announces; its results are fetched by it. C{""} where it announces none."""
    name = answer.get("id")
    return name if answer.get("type") == "message_batch" and isinstance(name, str) else ""


def requests(members: Members) -> list[tuple[str, Members]] | None:
    """Those of a batch: C{params} of each are a message's. Reference, "Create a Message Batch"."""
    listed = members.get("requests")
    if not isinstance(listed, list):
        return None
    found: list[tuple[str, Members]] = []
    for each in listed:
        params = each.get("params") if isinstance(each, dict) else None
        model = params.get("model") if isinstance(params, dict) else None
        if not isinstance(params, dict) or not isinstance(model, str) or not model:
            return None
        found.append((model, params))
    return found


MESSAGES = ProviderOperation(
    "messages",
    ("messages",),
    takes_text=True,
    makes_text=True,
    maxima=(("max_tokens",),),
    at_most=max_tool_calls,
    media=MEDIA,
)

OPERATIONS = (
    MESSAGES,
    ProviderOperation(
        "complete", ("complete",), takes_text=True, makes_text=True, maxima=(("max_tokens_to_sample",),), media=MEDIA
    ),
    ProviderOperation("count", ("messages/count_tokens",), free=True),
    ProviderOperation(
        "batch",
        ("messages/batches",),
        takes_model=False,
        billed_by_request=unknown_units,
        requests=requests,
        deferred=deferred_result_id,
    ),
)
