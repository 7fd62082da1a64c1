"""What a mule or worker does about signals and calls: its handlers, and running them.

Handlers run in a thread of the program's that is in a get or in `signal_wait`, between messages. A
handler that raises is reported with its traceback and counted, and has run all the same: only a
process that dies in it has it run again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from zmule.core.inbox import Delivery
from zmule.core.queues import STRAY_QUEUE
from zmule.mules.traces import show

Handler = Callable[[int], object]


class _Received(threading.local):
    """The signal that this thread has handled last."""

    number = 0


class Handlers:
    """The handlers of one process.

    Attributes:
        errors: how many handlers have raised.
    """

    def __init__(self) -> None:
        self.signals: dict[int, Handler] = {}
        self.calls: dict[str, Callable[[bytes], object]] = {}
        self.errors = 0
        self._received = _Received()

    def received(self) -> int:
        """Return the signal that this thread has handled last, 0 before the first."""
        return self._received.number

    def run(self, delivery: Delivery) -> int | None:
        """Run what a delivery asks for; return the signal's number, None for a call."""
        number, handler, argument = self._find(delivery)
        if number is not None:
            self._received.number = number
        if handler is None:
            if delivery.queue != STRAY_QUEUE:
                print(f"zmule: nobody handles {delivery.queue} here", file=sys.stderr)
            return number
        try:
            handler(argument)
        except Exception as error:
            self.errors += 1
            print(f"zmule: error in the handler of {delivery.queue}:", file=sys.stderr)
            show(error)
        return number

    def _find(self, delivery: Delivery) -> tuple[int | None, Callable[[Any], object] | None, Any]:
        body = delivery.body if isinstance(delivery.body, bytes) else delivery.body.encode()
        if delivery.queue.startswith("call:"):
            return None, self.calls.get(delivery.queue.split(":")[1]), body
        number = body[0] if body else 0
        return number, self.signals.get(number), number
