"""One turn of a chat, streamed, in the formats of OpenAI and Anthropic."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import click

from llmproxy.cli.client import NoRedirect, printable
from llmproxy.cli.errors import NotAuthorized, RequestRejected, Unreachable

READ_SECONDS = 120.0  # for each read; a model may think for a while
MAX_LINE_BYTES = 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
FORMATS = ("openai", "anthropic")
_PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@dataclass
class TurnSummary:
    """What a turn used, and how the token's limits stand after it.

    @ivar units: By the names of the price list: C{input_tokens}, C{output_tokens}, C{cache_read_tokens}.
    @ivar limits: Header fields of the response about rates.
    """

    text: str = ""
    model: str = ""
    units: dict[str, int] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)


class ChatClient:
    """Talks to one API of a daemon with a token. Follows no redirect and uses no proxy of the environment's."""

    def __init__(self, url: str, token: str, api: str, chat_format: str, model: str, max_tokens: int) -> None:
        self._url = f"{url.rstrip('/')}{f'/{api}' if api else ''}{_PATHS[chat_format]}"
        self._token = token
        self._format = chat_format
        self._model = model
        self._max_tokens = max_tokens
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())

    def stream(self, messages: Sequence[Mapping[str, str]], turn: TurnSummary) -> Iterator[str]:
        """The response, as it comes; C{turn} is filled meanwhile.

        @raise click.ClickException: The daemon or the provider rejects it, or nothing answers.
        """
        body = {"model": self._model, "messages": list(messages), "stream": True}
        if self._format == "anthropic":
            body["max_tokens"] = self._max_tokens
        else:
            body["stream_options"] = {"include_usage": True}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), method="POST")
        for name, value in (("Content-Type", "application/json"), ("User-Agent", "llmproxy-cli")):
            request.add_header(name, value)
        if self._format == "anthropic":
            request.add_header("Anthropic-Version", "2023-06-01")
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=READ_SECONDS) as response:
                turn.limits = {name: value for name, value in response.headers.items() if "ratelimit" in name.lower()}
                yield from self._text(response, turn)
        except urllib.error.HTTPError as e:
            with e:
                raise _rejected(e.code, e.read(MAX_ERROR_BYTES)) from e
        except (OSError, HTTPException) as e:
            why = printable(str(getattr(e, "reason", None) or e) or type(e).__name__)
            raise Unreachable(f"{self._url} does not answer: {why}") from e

    def _text(self, response: Any, turn: TurnSummary) -> Iterator[str]:
        while line := response.readline(MAX_LINE_BYTES):
            if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                continue
            try:
                event = json.loads(line[5:])
            except ValueError as e:
                raise Unreachable("The response is no stream of JSON events.") from e
            if isinstance(event, dict):
                if event.get("error"):
                    raise _rejected(200, line[5:])
                text = (_anthropic if self._format == "anthropic" else _openai)(event, turn)
                turn.text += text
                yield text


def _openai(event: Mapping[str, Any], turn: TurnSummary) -> str:
    turn.model = event.get("model") or turn.model
    usage = event.get("usage") or {}
    if usage:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        turn.units = {
            "input_tokens": usage.get("prompt_tokens") or 0,
            "output_tokens": usage.get("completion_tokens") or 0,
            **({"cache_read_tokens": cached} if cached else {}),
        }
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


def _anthropic(event: Mapping[str, Any], turn: TurnSummary) -> str:
    message = event.get("message") or {}
    turn.model = message.get("model") or turn.model
    usage = event.get("usage") or message.get("usage") or {}
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    if "input_tokens" in usage:
        turn.units["input_tokens"] = (usage["input_tokens"] or 0) + read + written
        turn.units |= {"cache_read_tokens": read} if read else {}
        turn.units |= {"cache_write_tokens": written} if written else {}
    if "output_tokens" in usage:
        turn.units["output_tokens"] = usage["output_tokens"] or 0
    return str((event.get("delta") or {}).get("text") or "")


def _rejected(status: int, body: bytes) -> click.ClickException:
    try:
        error = json.loads(body)["error"]
        text = printable(str(error["message"]))
    except (ValueError, KeyError, TypeError):
        text = "What answers there is not llmproxy, or says nothing of use."
    return (NotAuthorized if status in (401, 403) else RequestRejected)(f"{text} ({status})")
