#!/usr/bin/env python3
"""What clients see of a daemon while it is reloaded, rolled to new code, and while a worker is killed.

    python bench/workers.py [rolls | kills | single] [--streams 200] [--rate 100] [--reloads 40] [--rolls 5]

C{rolls}: so many live streams and requests a second through reloads and rolls of two workers. C{kills}: a worker is
killed under the same load. C{single}: rolls of a daemon with one worker, by SIGUSR2. It prints what failed and what
broke; clients send nothing again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.live_load import LiveLoad
from tests.support.rolled import ended_afterwards
from tests.support.stack import Stack
from tests.support.upheavals import kill_a_worker, reload_and_roll, roll_one_process
from tests.support.workers import WorkerStack


def main(given: argparse.Namespace) -> None:
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory()))
        stack = Stack(home) if given.what == "single" else WorkerStack(home, 2)
        running.enter_context(stack)
        running.enter_context(ended_afterwards(stack.daemon.output))

        async def trial() -> None:
            load = LiveLoad(stack)

            async def kills() -> None:
                death = await kill_a_worker(stack, load)
                print(f"  another one served after {death.seconds:.1f} s; it had {len(death.held)} connections, of which "
                      f"{len(load.lost & death.held)} lost something, its {len(death.streams)} streams among them; "
                      f"lost elsewhere: {len(load.lost - death.held)}")  # fmt: skip

            what = {
                "rolls": lambda: reload_and_roll(stack, given.reloads, given.rolls),
                "single": lambda: roll_one_process(stack, given.reloads, given.rolls),
                "kills": kills,
            }[given.what]
            took = await load.through(given.streams, given.rate, what())
            print(f"  {took:.0f} s; requests: {dict(load.requests)}; streams: {dict(load.streams)}")

        asyncio.run(trial())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rolls", "kills", "single"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--reloads", type=int, default=40)
    parser.add_argument("--rolls", type=int, default=5)
    main(parser.parse_args())
