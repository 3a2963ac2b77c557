"""Logs are lines that machines or people can read, and that give nothing away."""

from __future__ import annotations

import json
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.config.model import Logging
from llmproxy.observability.log_output import LogOutput, Redactor, observer


class Lines:
    """A logger whose output is at hand."""

    def __init__(self, **settings: Any) -> None:
        self.stream = StringIO()
        self.redactor = Redactor(["hunter2-hunter2", 'quo"ted-key'])
        self.output = observer(Logging(**settings), self.stream, self.redactor)
        self.log = Logger(namespace="llmproxy.test", observer=LogPublisher(self.output))

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class JSONTests(SynchronousTestCase):
    def test_line(self) -> None:
        """One event is one line: time, level, logger, message and every field it carries."""
        lines = Lines()
        lines.log.info("Made {what}.", what="tea", count=2, ok=None)
        lines.output({"log_time": 1700000000.25, "log_format": "x", "log_level": LogLevel.error})
        first, second = lines.json()
        self.assertEqual(
            {k: first[k] for k in ("level", "logger", "msg", "what", "count", "ok")},
            {"level": "info", "logger": "llmproxy.test", "msg": "Made tea.", "what": "tea", "count": 2, "ok": None},
        )
        self.assertEqual((second["ts"], second["level"]), ("2023-11-14T22:13:20.250Z", "error"))

    def test_level(self) -> None:
        """What is below the level of the settings is not written."""
        lines = Lines(level="warn")
        for say in (lines.log.debug, lines.log.info, lines.log.warn, lines.log.error, lines.log.critical):
            say("x")
        self.assertEqual([line["level"] for line in lines.json()], ["warn", "error", "critical"])

    def test_traceback(self) -> None:
        """A traceback is one field of one line."""
        lines = Lines()
        try:
            raise ValueError("two\nlines hunter2-hunter2")
        except ValueError:
            lines.log.failure("Oops.")
        (line,) = lines.json()
        self.assertEqual((line["level"], line["msg"]), ("critical", "Oops."))
        self.assertIn("Traceback", line["exception"])
        self.assertIn("two\nlines [redacted]", line["exception"])

    def test_secrets(self) -> None:
        """Secrets are masked in the message and in every field, also where JSON had to write them differently."""
        lines = Lines()
        lines.log.info("Key {key}", key='quo"ted-key', header=b"Bearer 0123456789abcdef", many=["hunter2-hunter2"])
        self.assertNotIn("hunter2", lines.text)
        self.assertNotIn("ted-key", lines.text)
        self.assertNotIn("0123456789abcdef", lines.text)
        self.assertEqual(lines.json()[0]["key"], "[redacted]")

    def test_later_secret(self) -> None:
        """A secret that becomes known later is masked from then on."""
        lines = Lines()
        lines.redactor.add("new-provider-key")
        lines.log.info("new-provider-key")
        self.assertNotIn("new-provider-key", lines.text)

    def test_odd_fields(self) -> None:
        """Fields of any kind leave a line that is JSON; one that is called like ours does not replace it."""
        lines = Lines()
        lines.log.info("x", msg="mine", nan=float("nan"), raw=b"\xff\x00", it=Unreadable(), nest={1: {2: (3, {4})}})
        line = lines.json()[0]
        self.assertEqual((line["msg"], line["msg_"], line["nan"], line["raw"]), ("x", "mine", "nan", "\\xff\x00"))
        self.assertEqual(line["nest"], {"1": {"2": [3, "{4}"]}})

    @given(st.text())
    @example("\x00\x1b[2J\x7f\x9b\r\n\u2028\u202e\ud800")
    def test_injection(self, said: str) -> None:
        """Whatever a client makes us say stays in one line of plain ASCII without control characters."""
        lines = Lines()
        lines.log.info("{said}", said=said)
        self.assertTrue(lines.text.isascii())
        self.assertTrue(lines.text[:-1].isprintable())
        self.assertEqual(lines.json()[0]["said"], lines.redactor.redact(said))

    def test_legacy(self) -> None:
        """What old parts of Twisted log is rendered too."""
        lines = Lines()
        lines.output({"log_time": 0.0, "log_format": "{log_text}", "log_text": "old", "isError": 0, "system": "-"})
        self.assertEqual(set(lines.json()[0]), {"ts", "level", "logger", "msg"})


class ConsoleTests(SynchronousTestCase):
    def test_line(self) -> None:
        """A person sees time, level, message and fields; no colours where there is no terminal."""
        lines = Lines(format="console")
        lines.log.warn("Sink {name} is slow.", name="file")
        for part in ("warn", "Sink file is slow.", "name=file", "[llmproxy.test]"):
            self.assertIn(part, lines.text)
        self.assertNotIn("\x1b", lines.text)

    def test_control_bytes(self) -> None:
        """A client cannot begin a line of its own, nor steer the terminal."""
        lines = Lines(format="console")
        lines.log.info("{path}", path="/a\r\n\x1b[2J\u202e\u2028\x9b\ud800b")
        self.assertEqual(lines.text.count("\n"), 1)
        self.assertTrue(lines.text[:-1].isprintable())
        self.assertIn("/a\\x0d\\x0a\\x1b[2J\\u202e\\u2028\\x9b\\ud800b", lines.text)

    def test_secrets_and_traceback(self) -> None:
        """A traceback keeps its lines and loses its secrets."""
        lines = Lines(format="console")
        lines.log.failure("Oops.", Failure(ValueError("hunter2-hunter2\x1b")))
        self.assertIn("ValueError: [redacted]\\x1b", lines.text)
        self.assertGreater(lines.text.count("\n"), 1)

    def test_narrow_encoding(self) -> None:
        """A terminal that cannot show a character is given its escape."""
        raw = BytesIO()
        stream = TextIOWrapper(raw, encoding="ascii")
        observer(Logging(format="console"), stream, Redactor())({"log_time": 0.0, "log_format": "für"})
        self.assertIn(b"f\\xfcr", raw.getvalue())


class OutputTests(SynchronousTestCase):
    def test_promise(self) -> None:
        self.assertTrue(verifyObject(ILogObserver, Lines().output))

    def test_batch(self) -> None:
        """Lines that were collected are written in one go, whatever the level of the logs."""
        lines = Lines(level="error")
        lines.output.write([{"msg": "request", "path": "/hunter2-hunter2"}, {"msg": "request", "status": 200}])
        self.assertEqual(lines.json(), [{"msg": "request", "path": "/[redacted]"}, {"msg": "request", "status": 200}])

    def test_broken_stream(self) -> None:
        """A reader that is gone stops no request; the lost lines are counted."""
        lines = Lines()
        lines.stream.close()
        lines.output.write([{"msg": "a"}, {"msg": "b"}])
        self.assertEqual(lines.output.lost, 2)
        self.assertIsInstance(lines.output, LogOutput)
