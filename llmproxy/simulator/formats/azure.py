"""Azure OpenAI: OpenAI's formats under a deployment, with a key in C{api-key}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from llmproxy.simulator.dialect import CREATED, Call, Refused, Reply, event
from llmproxy.simulator.formats import openai
from llmproxy.simulator.formats.chat import chat

NAME = "azure"

error_event = openai.error_event


def credential(call: Call) -> str | None:
    return call.fields.get("api-key")


def reply(call: Call) -> Reply:
    _, _, rest = call.path.partition("deployments/")
    deployment, _, operation = rest.partition("/")
    if "api-version" not in call.query or not deployment or call.method != "POST":
        raise Refused(404, "Resource not found")
    named = replace(call, body={**call.body, "model": call.body.get("model") or deployment})
    if operation == "chat/completions":
        answer = chat(named, "azure")
        return answer if answer.body is not None else replace(answer, pieces=chain(_filtered(named), answer.pieces))
    if operation == "embeddings":
        return openai.embeddings(named, "azure")
    raise Refused(404, "Resource not found")


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    """As OpenAI's, with the status as code, which is what the gateway in front of Azure says."""
    shape = openai.error(status, message, code, request_id)
    return {"error": {**shape["error"], "code": code or str(status)}}


def lines(request_id: str) -> list[bytes]:
    name = request_id.encode()
    return [
        b"x-request-id: " + name,
        b"apim-request-id: " + name,
        b"x-ms-region: Simulator Central",
        *openai.ratelimits(),
    ]


def _filtered(call: Call) -> Iterator[bytes]:
    """The chunk without choices that Azure sends first."""
    filtered = [{"prompt_index": 0, "content_filter_results": {}}]
    head = {"id": "", "object": "", "created": CREATED, "model": ""}
    yield event({**head, "choices": [], "prompt_filter_results": filtered})
