"""A body on its way."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface.verify import verifyObject

from llmproxy import errors
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.server.request_body import MAX_HELD_BYTES, RequestBody
from tests.unit.wire.serving import Consumer, failure_of


class Uploads(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls = 0

    def upload(self, length: Any = UNKNOWN_LENGTH, limit: int = 10**9) -> RequestBody:
        def room() -> None:
            self.calls += 1

        return RequestBody(length, limit, room)

    def test_it_is_a_body_producer(self) -> None:
        verifyObject(IBodyProducer, self.upload())

    def test_a_body_that_has_arrived(self) -> None:
        upload = self.upload()
        upload.arrived(b"he")
        self.assertIsNone(upload.received)
        upload.arrived(b"llo")
        upload.completed()
        self.assertEqual((upload.received, upload.count), (b"hello", 5))
        self.assertEqual(self.successResultOf(upload.read_all(5)), b"hello")
        self.assertEqual(upload.received, b"hello")

    def test_no_body(self) -> None:
        upload = self.upload(0)
        self.assertEqual(upload.received, b"")
        self.successResultOf(upload.startProducing(Consumer()))

    def test_what_arrived_before_and_after(self) -> None:
        upload, consumer, seen = self.upload(), Consumer(), list[bytes]()
        upload.taps.append(seen.append)
        upload.arrived(b"one")
        reading = upload.startProducing(consumer)
        upload.arrived(b"two")
        self.assertEqual(consumer.taken, b"onetwo")
        self.assertNoResult(reading)
        upload.completed()
        self.successResultOf(reading)
        self.assertEqual(seen, [b"one", b"two"])
        self.assertIsNone(upload.received)

    def test_whole_then_received(self) -> None:
        upload = self.upload()
        reading = upload.read_all(10)
        upload.arrived(b"hello")
        upload.completed()
        self.assertEqual((self.successResultOf(reading), upload.received), (b"hello", b"hello"))
        self.assertEqual(self.successResultOf(upload.read_all(10)), b"hello")

    def test_a_consumer_that_pauses_while_it_is_fed(self) -> None:
        class Sated(Consumer):
            def write(self, data: bytes) -> None:
                super().write(data)
                upload.pauseProducing()

        upload, consumer = self.upload(), Sated()
        upload.arrived(b"one")
        upload.arrived(b"two")
        reading = upload.startProducing(consumer)
        upload.completed()
        self.assertEqual(consumer.taken, b"one")
        upload.resumeProducing()
        self.assertEqual(consumer.taken, b"onetwo")
        self.successResultOf(reading)

    def test_how_much_is_held(self) -> None:
        upload = self.upload()
        upload.arrived(b"a" * (MAX_HELD_BYTES - 1))
        self.assertFalse(upload.full)
        upload.arrived(b"a")
        self.assertTrue(upload.full)
        upload.startProducing(Consumer())
        self.assertFalse(upload.full)
        self.assertGreater(self.calls, 0)

    def test_limits(self) -> None:
        self.assertIs(failure_of(self.upload(11).read_all(10)), errors.RequestTooLarge)
        upload = self.upload(limit=10)
        reading = upload.startProducing(Consumer())
        upload.arrived(b"a" * 10)
        self.assertNoResult(reading)
        upload.arrived(b"a")
        self.assertIs(failure_of(reading), errors.RequestTooLarge)
        upload = self.upload()
        upload.arrived(b"a" * 11)
        self.assertIs(failure_of(upload.read_all(10)), errors.RequestTooLarge)
        upload = self.upload()
        upload.arrived(b"a" * 11)
        upload.completed()
        self.assertIs(failure_of(upload.read_all(10)), errors.RequestTooLarge)

    def test_what_is_beyond_the_limit_is_not_kept(self) -> None:
        upload = self.upload(limit=10)
        for _ in range(100):
            upload.arrived(b"a" * 9)
        self.assertFalse(upload._pieces)

    def test_a_failure_before_anybody_asks(self) -> None:
        upload = self.upload()
        upload.arrived(b"a")
        upload.failed(errors.ClientGone())
        upload.failed(errors.BodyTimeout())
        self.assertIs(failure_of(upload.startProducing(Consumer())), errors.ClientGone)

    def test_a_failure_after_all_has_arrived(self) -> None:
        upload = self.upload()
        upload.arrived(b"a")
        upload.completed()
        upload.failed(errors.ClientGone())
        self.assertEqual(upload.received, b"a")

    def test_nobody_wants_the_rest(self) -> None:
        upload, consumer = self.upload(), Consumer()
        reading = upload.startProducing(consumer)
        upload.stopProducing()
        upload.arrived(b"a" * 10 * MAX_HELD_BYTES)
        upload.completed()
        upload.failed(errors.ClientGone())
        self.assertNoResult(reading)
        self.assertEqual((consumer.taken, upload.full), (b"", False))

    def test_reading_it_twice(self) -> None:
        upload = self.upload()
        upload.startProducing(Consumer())
        self.assertIs(failure_of(upload.startProducing(Consumer())), RuntimeError)


class Counted(SynchronousTestCase):
    """What is held of a body is on the account of all."""

    def setUp(self) -> None:
        self.buffers = Buffers(100)

    def upload(self, length: Any = UNKNOWN_LENGTH) -> RequestBody:
        return RequestBody(length, 10**9, lambda: None, self.buffers)

    def test_while_nobody_takes_it(self) -> None:
        upload, consumer = self.upload(), Consumer()
        upload.arrived(b"x" * 30)
        self.assertEqual(self.buffers.held, 30)
        reading = upload.startProducing(consumer)
        self.assertEqual((self.buffers.held, len(consumer.taken)), (0, 30))
        upload.pauseProducing()
        upload.arrived(b"x" * 20)
        self.assertEqual(self.buffers.held, 20)
        upload.failed(errors.ClientGone())
        self.assertIs(failure_of(reading), errors.ClientGone)
        self.assertEqual(self.buffers.held, 0)

    def test_read_whole(self) -> None:
        """A known length is reserved before it is read, and given back when the request is over."""
        upload = self.upload(60)
        upload.arrived(b"x" * 10)
        reading = upload.read_all(1000)
        self.assertEqual(self.buffers.held, 60)
        upload.arrived(b"x" * 50)
        upload.completed()
        self.assertEqual(len(self.successResultOf(reading)), 60)
        self.assertEqual(self.buffers.held, 60)
        upload.release()
        self.assertEqual(self.buffers.held, 0)

    def test_all_of_one_that_is_waited_for(self) -> None:
        """It is counted before it comes, where there is room; what does not come is given back."""
        self.buffers = Buffers(1_000_000)
        upload, none = self.upload(200_000), self.upload(100_000)
        upload.arrived(b"x" * 10_000)
        self.assertTrue(upload.hold_all())
        upload.arrived(b"x" * 90_000)
        self.assertEqual((self.buffers.held, upload.full), (200_000, False))
        upload.hold_no_more()
        self.assertEqual((self.buffers.held, upload.full), (100_000, True))
        upload.release()
        self.buffers.hold(500_000)
        self.assertFalse(none.hold_all())
        self.assertEqual(self.buffers.held, 500_000)
        self.buffers.hold(-200_000)
        self.assertTrue(none.hold_all())
        none.failed(errors.ClientGone())
        self.assertEqual(self.buffers.held, 300_000)

    def test_no_room(self) -> None:
        """It is refused at once, or when it has grown too much."""
        self.buffers.hold(50)
        error = failure_of(self.upload(60).read_all(1000))
        self.assertIs(error, errors.BuffersFull)
        growing = self.upload()
        reading = growing.read_all(1000)
        growing.arrived(b"x" * 40)
        growing.arrived(b"x" * 40)
        self.assertIs(failure_of(reading), errors.BuffersFull)
        self.assertEqual((self.buffers.held, self.buffers.refused), (50, 2))

    def test_one_that_came_with_its_head(self) -> None:
        upload = RequestBody.of(b"x" * 5000, 10**9, self.buffers)
        self.assertEqual(self.buffers.held, 5000)
        upload.release()
        upload.release()
        self.assertEqual(self.buffers.held, 0)
