"""The official SDKs through the started daemon: plain, streamed, refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.stack import KEYS, Stack

# Each is imported by the tests that use it: together that takes seconds, in every process that collects this file.
HELLO: Any = [{"role": "user", "content": "Say hello, please."}]
NO_TOKEN = "sk-lp-" + "x" * 43


def seen(stack: Stack, key: str) -> None:
    """The provider got its own key, and the client's token nowhere."""
    last = stack.last()
    everything = "\n".join([last["target"], *last["headers"], str(last["body"])])
    assert key in everything
    assert "sk-lp-" not in everything


def test_openai(stack: Stack) -> None:
    import openai

    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.token) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert answer.choices[0].message.content
        assert answer.usage and answer.usage.total_tokens > 0
        seen(stack, KEYS["openai"])
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
        assert len(chunks) > 3
        with client.responses.stream(model="gpt-4o", input="Say hello.") as stream:
            assert [event.type for event in stream][-1] == "response.completed"
        assert client.embeddings.create(model="text-embedding-3-small", input="hello").data[0].embedding
        assert list(client.models.list())


def test_openai_refused(stack: Stack) -> None:
    import openai

    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=NO_TOKEN) as client:
        with pytest.raises(openai.AuthenticationError, match="token is not known") as caught:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert caught.value.code == "token_not_found"
        assert caught.value.request_id
        with pytest.raises(openai.PermissionDeniedError, match="endpoint"):
            client.moderations.create(input="x")


def test_the_providers_own_error_arrives_as_it_is(stack: Stack) -> None:
    import openai

    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.token, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers={"X-Sim-Status": "429"})
        assert "X-LLMProxy-Error" not in caught.value.response.headers


def test_anthropic(stack: Stack) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=f"{stack.url}/anthropic", api_key=stack.token) as client:
        message = client.messages.create(model="claude-sonnet-5-5", max_tokens=64, messages=HELLO)
        assert message.content[0].type == "text" and message.usage.output_tokens > 0
        seen(stack, KEYS["anthropic"])
        with client.messages.stream(model="claude-sonnet-5-5", max_tokens=64, messages=HELLO) as stream:
            assert "".join(stream.text_stream)


def test_anthropic_refused(stack: Stack) -> None:
    import anthropic

    with (
        anthropic.Anthropic(base_url=f"{stack.url}/anthropic", api_key=NO_TOKEN) as client,
        pytest.raises(anthropic.AuthenticationError, match="token is not known") as caught,
    ):
        client.messages.create(model="claude-sonnet-5-5", max_tokens=64, messages=HELLO)
    assert caught.value.request_id


def test_anthropic_overloaded_keeps_status_and_reason(stack: Stack) -> None:
    body = b'{"model":"claude-sonnet-5-5","max_tokens":8,"messages":[{"role":"user","content":"x"}]}'
    reply = stack.ask("POST", "/anthropic/v1/messages", body, {"X-Sim-Status": "529 Overloaded"})
    assert (reply.status, reply.phrase) == (529, "Overloaded")
    assert reply.json["error"]["type"] == "overloaded_error"


def test_gemini(stack: Stack) -> None:
    from google import genai

    with genai.Client(api_key=stack.token, http_options={"base_url": f"{stack.url}/google"}) as client:
        answer = client.models.generate_content(model="gemini-2.5-flash", contents="Say hello.")
        assert answer.text
        seen(stack, KEYS["google"])
        parts = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Say hello."))
        assert len(parts) > 3


def test_gemini_refused(stack: Stack) -> None:
    from google import genai
    from google.genai import errors as genai_errors

    with (
        genai.Client(api_key=NO_TOKEN, http_options={"base_url": f"{stack.url}/google"}) as client,
        pytest.raises(genai_errors.ClientError, match="token is not known") as caught,
    ):
        client.models.generate_content(model="gemini-2.5-flash", contents="Say hello.")
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")


@pytest.mark.filterwarnings("ignore")  # of the import, none of ours to mend
def test_mistral(stack: Stack) -> None:
    from mistralai.client import Mistral

    with Mistral(api_key=stack.token, server_url=f"{stack.url}/mistral") as client:
        answer = client.chat.complete(model="mistral-small-latest", messages=HELLO)
        assert answer.choices[0].message and answer.choices[0].message.content
        seen(stack, KEYS["mistral"])
        with client.chat.stream(model="mistral-small-latest", messages=HELLO) as events:
            assert len(list(events)) > 3


@pytest.mark.filterwarnings("ignore")  # of the import, none of ours to mend
def test_mistral_refused(stack: Stack) -> None:
    from mistralai.client import Mistral
    from mistralai.client.errors import SDKError

    with (
        Mistral(api_key=NO_TOKEN, server_url=f"{stack.url}/mistral") as client,
        pytest.raises(SDKError, match="token is not known"),
    ):
        client.chat.complete(model="mistral-small-latest", messages=HELLO)


def test_azure(stack: Stack) -> None:
    import openai

    with openai.AzureOpenAI(
        azure_endpoint=f"{stack.url}/azure", api_key=stack.token, api_version="2025-01-01-preview"
    ) as client:
        assert client.chat.completions.create(model="gpt-4o", messages=HELLO).choices
        seen(stack, KEYS["azure"])
