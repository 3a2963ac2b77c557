"""The simulator as its users meet it: a twistd process, driven by the providers' own SDKs and by raw sockets."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
import time
import unittest
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.support.processes import HOST, Daemon, free_port

# Each SDK is imported by the tests that use it: together that takes seconds, in every process that collects this file.
if TYPE_CHECKING:
    from google import genai

PROMPT = "one two three"
pytestmark = [
    # The SDKs' own: none of these lines is ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class SimulatorCase(unittest.TestCase):
    daemon: ClassVar[Daemon]

    @classmethod
    def setUpClass(cls) -> None:
        folder = TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        port = free_port()
        listen = f"tcp:{port}:interface={HOST}"
        log = Path(folder.name, "simulator.log")
        cls.daemon = Daemon("llmproxy-simulator", "--listen", listen, port=port, log=log)
        cls.daemon.start()
        cls.addClassCleanup(cls.end)

    @classmethod
    def end(cls) -> None:
        """Nothing that its clients did may have surprised it."""
        cls.daemon.stop()
        assert "Traceback" not in cls.daemon.output(), cls.daemon.output()

    def setUp(self) -> None:
        request = urllib.request.Request(f"{self.daemon.url}/-/requests", method="DELETE")
        urllib.request.urlopen(request, timeout=5).close()

    def recorded(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.daemon.url}/-/requests", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["requests"]
            return found

    def eventually(self, what: str) -> dict[str, Any]:
        """The last recorded request, once it has this."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            entry = self.recorded()[-1]
            if entry[what] is not None:
                return entry
            time.sleep(0.01)
        raise AssertionError(f"no {what} in {self.recorded()[-1]}")


class OpenAITests(SimulatorCase):
    def setUp(self) -> None:
        import openai

        super().setUp()
        self.client = openai.OpenAI(base_url=f"{self.daemon.url}/v1", api_key="sk-sim-openai", max_retries=0)
        self.addCleanup(self.client.close)
        self.messages: Any = [{"role": "user", "content": PROMPT}]

    def test_chat_completion(self) -> None:
        answer = self.client.chat.completions.create(model="gpt-4o", messages=self.messages)
        assert answer.usage is not None
        used = (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
        self.assertEqual(used, (3, 8, 11))
        self.assertEqual(len((answer.choices[0].message.content or "").split()), 8)

    def test_chat_completion_streamed(self) -> None:
        """Usage comes in one last chunk without choices, because it was asked for."""
        chunks = list(
            self.client.chat.completions.create(
                model="gpt-4o",
                messages=self.messages,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers={"X-Sim-Events": "5"},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(len(text.split()), 5)
        self.assertEqual(chunks[-1].choices, [])
        assert chunks[-1].usage is not None
        self.assertEqual(chunks[-1].usage.total_tokens, 8)

    def test_chat_completion_streamed_without_asking_for_usage(self) -> None:
        chunks = list(self.client.chat.completions.create(model="gpt-4o", messages=self.messages, stream=True))
        self.assertTrue(all(chunk.choices and chunk.usage is None for chunk in chunks))

    def test_responses(self) -> None:
        answer = self.client.responses.create(model="gpt-4o", input=PROMPT, instructions="be brief")
        assert answer.usage is not None
        self.assertEqual((answer.usage.input_tokens, answer.usage.output_tokens), (5, 8))
        self.assertEqual(len(answer.output_text.split()), 8)

    def test_responses_streamed(self) -> None:
        with self.client.responses.stream(model="gpt-4o", input=PROMPT) as events:
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            final = events.get_final_response()
        self.assertEqual(text, final.output_text)
        assert final.usage is not None
        self.assertEqual(final.usage.total_tokens, 11)

    def test_embeddings_are_the_same_as_numbers_and_as_base64(self) -> None:
        packed = self.client.embeddings.create(model="text-embedding-3-small", input=[PROMPT, "four"])
        plain = self.client.embeddings.create(
            model="text-embedding-3-small", input=[PROMPT, "four"], encoding_format="float"
        )
        self.assertEqual([list(item.embedding) for item in packed.data], [list(item.embedding) for item in plain.data])
        self.assertEqual(packed.usage.prompt_tokens, 4)

    def test_models(self) -> None:
        import openai

        self.assertIn("gpt-4o", [model.id for model in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve("gpt-4o").owned_by, "openai")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("gpt-0")

    def test_file_upload(self) -> None:
        self.assertGreater(self.client.files.create(file=b"abc", purpose="user_data").bytes, 3)

    def test_a_wrong_key_raises_the_typed_exception(self) -> None:
        import openai

        client = self.client.with_options(api_key="sk-wrong")
        with self.assertRaises(openai.AuthenticationError) as caught:
            client.models.list()
        self.assertEqual(caught.exception.code, "invalid_api_key")
        self.assertTrue((caught.exception.request_id or "").startswith("req_sim_"))

    def test_a_stream_that_fails_raises(self) -> None:
        import openai

        chunks = self.client.chat.completions.create(
            model="gpt-4o", messages=self.messages, stream=True, extra_headers={"X-Sim-Fault": "error-event"}
        )
        with self.assertRaises(openai.APIError) as caught:
            list(chunks)
        self.assertEqual(caught.exception.code, "server_error")

    def test_azure(self) -> None:
        import openai

        client = openai.AzureOpenAI(
            azure_endpoint=self.daemon.url, api_key="sk-sim-azure", api_version="2024-10-21", max_retries=0
        )
        self.addCleanup(client.close)
        answer = client.chat.completions.create(model="my-deployment", messages=self.messages)
        assert answer.usage is not None
        self.assertEqual(answer.usage.total_tokens, 11)
        chunks = list(client.chat.completions.create(model="my-deployment", messages=self.messages, stream=True))
        self.assertEqual(chunks[0].choices, [])
        self.assertEqual(
            self.recorded()[0]["target"].partition("?")[0], "/openai/deployments/my-deployment/chat/completions"
        )


@pytest.mark.long("3 s: the simulator to this SDK, which others take through the daemon")
class AnthropicTests(SimulatorCase):
    def setUp(self) -> None:
        import anthropic

        super().setUp()
        self.client = anthropic.Anthropic(base_url=self.daemon.url, api_key="sk-sim-anthropic", max_retries=0)
        self.addCleanup(self.client.close)
        self.call: Any = {
            "model": "claude-sonnet-4-5",
            "max_tokens": 100,
            "system": "be brief",
            "messages": [{"role": "user", "content": PROMPT}],
        }

    def test_message(self) -> None:
        answer = self.client.messages.create(**self.call)
        self.assertEqual((answer.usage.input_tokens, answer.usage.output_tokens), (5, 8))
        self.assertEqual(answer.content[0].type, "text")

    def test_message_streamed(self) -> None:
        with self.client.messages.stream(**self.call, extra_headers={"X-Sim-Events": "3"}) as events:
            text = "".join(events.text_stream)
            final = events.get_final_message()
        self.assertEqual(len(text.split()), 3)
        self.assertEqual((final.usage.input_tokens, final.usage.output_tokens), (5, 3))
        self.assertEqual(final.stop_reason, "end_turn")

    def test_counting_tokens(self) -> None:
        counted = {key: value for key, value in self.call.items() if key != "max_tokens"}
        self.assertEqual(self.client.messages.count_tokens(**counted).input_tokens, 5)

    def test_models(self) -> None:
        self.assertIn("claude-sonnet-4-5", [model.id for model in self.client.models.list()])

    def test_overload_raises_the_typed_exception(self) -> None:
        import anthropic

        with self.assertRaises(anthropic.APIStatusError) as caught:
            self.client.messages.create(**self.call, extra_headers={"X-Sim-Status": "529 Overloaded"})
        self.assertEqual(caught.exception.status_code, 529)
        self.assertTrue((caught.exception.request_id or "").startswith("req_sim_"))

    def test_a_wrong_key_raises_the_typed_exception(self) -> None:
        import anthropic

        with self.assertRaises(anthropic.AuthenticationError):
            self.client.with_options(api_key="sk-wrong").messages.create(**self.call)

    def test_a_stream_that_fails_raises(self) -> None:
        import anthropic

        with (
            self.assertRaises(anthropic.APIStatusError),
            self.client.messages.stream(**self.call, extra_headers={"X-Sim-Fault": "error-event"}) as events,
        ):
            events.until_done()


@pytest.mark.long("2 s: the simulator to this SDK, which others take through the daemon")
class GoogleTests(SimulatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.open("sk-sim-google")

    def open(self, key: str, **headers: str) -> genai.Client:
        from google import genai

        client = genai.Client(api_key=key, http_options={"base_url": self.daemon.url, "headers": headers})
        self.addCleanup(client.close)
        return client

    def test_generate_content(self) -> None:
        answer = self.client.models.generate_content(model="gemini-2.5-flash", contents=PROMPT)
        used = answer.usage_metadata
        assert used is not None
        self.assertEqual((used.prompt_token_count, used.candidates_token_count, used.total_token_count), (3, 8, 11))
        self.assertEqual(len((answer.text or "").split()), 8)

    def test_generate_content_streamed(self) -> None:
        client = self.open("sk-sim-google", **{"X-Sim-Events": "4"})
        chunks = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents=PROMPT))
        self.assertEqual(len(chunks), 4)
        assert chunks[-1].usage_metadata is not None
        self.assertEqual(chunks[-1].usage_metadata.total_token_count, 7)

    def test_counting_tokens(self) -> None:
        counted = self.client.models.count_tokens(model="gemini-2.5-flash", contents=PROMPT)
        self.assertEqual(counted.total_tokens, 3)

    def test_embedding(self) -> None:
        answer = self.client.models.embed_content(model="gemini-embedding-001", contents=PROMPT)
        assert answer.embeddings is not None
        self.assertEqual(len(answer.embeddings[0].values or []), 8)

    def test_models(self) -> None:
        self.assertIn("models/gemini-2.5-flash", [model.name for model in self.client.models.list()])

    def test_a_wrong_key_raises_the_typed_exception(self) -> None:
        from google.genai.errors import APIError

        with self.assertRaises(APIError) as caught:
            self.open("sk-wrong").models.generate_content(model="gemini-2.5-flash", contents=PROMPT)
        self.assertEqual((caught.exception.code, caught.exception.status), (401, "UNAUTHENTICATED"))


@pytest.mark.long("1 s: the simulator to this SDK, which others take through the daemon")
class MistralTests(SimulatorCase):
    def setUp(self) -> None:
        from mistralai.client import Mistral

        super().setUp()
        self.client = Mistral(server_url=self.daemon.url, api_key="sk-sim-mistral")
        self.messages: Any = [{"role": "user", "content": PROMPT}]

    def test_chat(self) -> None:
        answer = self.client.chat.complete(model="mistral-small-latest", messages=self.messages)
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens), (3, 8))

    def test_chat_streamed(self) -> None:
        """Usage comes in the last chunk without asking."""
        with self.client.chat.stream(model="mistral-small-latest", messages=self.messages) as events:
            chunks = [event.data for event in events]
        self.assertEqual("".join(str(chunk.choices[0].delta.content) for chunk in chunks).count(" "), 7)
        used = chunks[-1].usage
        assert used is not None
        self.assertEqual(used.total_tokens, 11)

    def test_embeddings_and_models(self) -> None:
        answer = self.client.embeddings.create(model="mistral-embed", inputs=[PROMPT])
        self.assertEqual((len(answer.data[0].embedding or []), answer.usage.prompt_tokens), (8, 3))
        models = self.client.models.list().data or []
        self.assertIn("mistral-small-latest", [getattr(model, "id", None) for model in models])

    def test_a_wrong_key_under_the_prefix_raises_the_typed_exception(self) -> None:
        from mistralai.client import Mistral
        from mistralai.client.errors import SDKError

        client = Mistral(server_url=f"{self.daemon.url}/mistral", api_key="sk-wrong")
        with self.assertRaises(SDKError) as caught:
            client.chat.complete(model="mistral-small-latest", messages=self.messages)
        self.assertEqual(json.loads(caught.exception.body)["object"], "error")


class SocketTests(SimulatorCase):
    """What no SDK shows."""

    def send(self, *lines: str, body: bytes = b"") -> socket.socket:
        peer = socket.create_connection((HOST, self.daemon.port), 5)
        self.addCleanup(peer.close)
        fields = [*lines, "Host: sim", "Authorization: Bearer sk-sim-openai", f"Content-Length: {len(body)}", "", ""]
        peer.sendall("\r\n".join(fields).encode() + body)
        return peer

    def stream(self, *lines: str) -> socket.socket:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}], "stream": True})
        return self.send("POST /v1/chat/completions HTTP/1.1", *lines, body=body.encode())

    def whole(self, peer: socket.socket) -> bytes:
        data = b""
        while block := peer.recv(65536):
            data += block
        return data

    def test_a_client_leaving_is_seen_at_once(self) -> None:
        """Before the head, between head and first event, and between events: within a tenth of a second."""
        for lines in ("X-Sim-Delay: 30", "X-Sim-Fault: stall; after=0", "X-Sim-Delay: 0, 30"):
            with self.subTest(lines):
                peer = self.stream(lines)
                self.eventually("received_at")
                left = time.time()
                peer.close()
                self.assertLess(self.eventually("left_at")["left_at"] - left, 0.1)

    def test_a_client_leaving_while_nothing_is_read_is_seen(self) -> None:
        peer = self.send("GET /-/bytes?size=100000000 HTTP/1.1")
        self.eventually("received_at")
        peer.close()
        self.assertLess(self.eventually("left_at")["bytes_sent"], 100_000_000)

    def test_a_reset_is_a_reset(self) -> None:
        for fault in ("reset", "reset-head"):
            with self.subTest(fault), self.assertRaises(ConnectionResetError):
                self.whole(self.stream(f"X-Sim-Fault: {fault}"))

    def test_truncation_is_a_clean_close_without_a_last_chunk(self) -> None:
        data = self.whole(self.stream("X-Sim-Fault: truncate"))
        self.assertTrue(data.startswith(b"HTTP/1.1 200 OK\r\n") and not data.endswith(b"0\r\n\r\n"))

    def test_an_early_answer_arrives_whole(self) -> None:
        peer = socket.create_connection((HOST, self.daemon.port), 5)
        self.addCleanup(peer.close)
        fields = ["POST /v1/files HTTP/1.1", "Host: sim", "Authorization: Bearer sk-sim-openai"]
        peer.sendall("\r\n".join([*fields, "X-Sim-Fault: early", "Content-Length: 9000000", "", ""]).encode())
        peer.sendall(b"a" * 500_000)
        data = self.whole(peer)
        self.assertTrue(data.startswith(b"HTTP/1.1 413 "), data)
        self.assertEqual(json.loads(data.partition(b"\r\n\r\n")[2])["error"]["type"], "invalid_request_error")

    def test_header_lines_and_bodies_are_recorded_as_sent(self) -> None:
        body = gzip.compress(b'{"a":1,"a":2}')
        peer = self.send("POST /v1/files HTTP/1.1", "x-ODD:  1 ", "X-Odd: 2", "Connection: close", body=body)
        self.whole(peer)
        entry = self.recorded()[-1]
        self.assertEqual(entry["headers"][:2], ["x-ODD:  1 ", "X-Odd: 2"])
        self.assertEqual(base64.b64decode(entry["body"]), body)
        self.assertEqual(entry["body_sha256"], hashlib.sha256(body).hexdigest())

    def test_a_large_download_and_upload_need_little_memory(self) -> None:
        before = self.memory()
        with urllib.request.urlopen(f"{self.daemon.url}/-/bytes?size=100000000", timeout=30) as answer:
            size = sum(map(len, iter(lambda: answer.read(1 << 20), b"")))
        self.assertEqual(size, 100_000_000)
        peer = self.send("GET /-/bytes?size=100000000 HTTP/1.1")
        time.sleep(0.5)
        peer.close()
        self.assertLess(self.memory() - before, 20_000)

    def memory(self) -> int:
        """The most resident memory so far, in KiB."""
        lines = Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


class CommandTests(unittest.TestCase):
    def test_keys_come_from_a_file_and_it_may_listen_twice(self) -> None:
        first, second = free_port(), free_port()
        with TemporaryDirectory() as folder:
            keys = Path(folder, "keys")
            keys.write_text("# ours\nopenai=sk-ours\n")
            listen = [f"--listen=tcp:{port}:interface={HOST}" for port in (first, second)]
            args = ("llmproxy-simulator", *listen, "--keys", str(keys))
            with Daemon(*args, port=second, log=Path(folder, "log")):  # it listens in this order
                for port in (first, second):
                    request = urllib.request.Request(f"http://{HOST}:{port}/v1/models")
                    request.add_header("Authorization", "Bearer sk-ours")
                    with urllib.request.urlopen(request, timeout=5) as answer:
                        self.assertEqual(answer.status, 200)

    def test_a_mistake_on_the_command_line_ends_it_with_the_reason(self) -> None:
        with TemporaryDirectory() as folder:
            daemon = Daemon("llmproxy-simulator", "--key", "openai", port=free_port(), log=Path(folder, "log"))
            with self.assertRaisesRegex(AssertionError, "PROVIDER=KEY"):
                daemon.start()
