"""What several workers say of how they are."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.base.peers import PeerAnswer
from llmproxy.process.readiness import of_workers


class ReadinessTests(TestCase):
    def test_all_well(self) -> None:
        found = of_workers([PeerAnswer(n, [{"store": "ok", "state": "ok"}, {"log": "ok"}]) for n in (1, 2)])
        self.assertEqual(found.required, {"store": "ok", "state": "ok", "workers": "ok"})
        self.assertEqual(found.lesser, {"log": "ok", "roll": "ok"})

    def test_what_all_say(self) -> None:
        """It is said once."""
        found = of_workers([PeerAnswer(n, [{"store": "disk_full"}, {}]) for n in (1, 2)])
        self.assertEqual(found.required["store"], "disk_full")

    def test_what_one_says(self) -> None:
        found = of_workers(
            [PeerAnswer(1, [{"store": "ok"}, {"log": "full"}]), PeerAnswer(2, [{"store": "timeout"}, {"log": "ok"}])]
        )
        self.assertEqual((found.required["store"], found.lesser["log"]), ("worker 2: timeout", "worker 1: full"))

    def test_one_that_is_missing(self) -> None:
        found = of_workers([PeerAnswer(1, [{"store": "ok"}, {}]), PeerAnswer(2, None, "starting")], "not rolled: x")
        self.assertEqual(found.required, {"store": "ok", "workers": "worker 2: starting"})
        self.assertEqual(found.lesser["roll"], "not rolled: x")
