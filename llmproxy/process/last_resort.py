"""The end of a process that does not end: threads that hang are not waited for for ever."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

STATUS = 1


def end_within(seconds: float) -> None:
    """End this process in so many seconds, unless it has ended by then; say which threads it was waiting for.

    Twisted joins the reactor's threads and Python all others, with no end where one of them hangs in the kernel: a name
    server, a file server. A supervisor would then kill the process without a word.
    """
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True  # nobody waits for it
    timer.start()


def _end(seconds: float) -> None:
    hanging = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    what = ", ".join(hanging) or "the main thread"
    with suppress(OSError):  # the log's reader may be what hangs
        os.set_blocking(2, False)
        os.write(2, f"llmproxy: ended by force {seconds:g} s after its last request; it waited for {what}.\n".encode())
    os._exit(STATUS)
