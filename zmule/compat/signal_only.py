"""What a signal-only mule does once its application is loaded.

The application may have left hooks in the `uwsgi` module: one that runs first, and may never return, which
takes the mule over; others that messages are to be given to. Without these it reads no messages, and says
so to the broker; with them it does not, but is seen to wait for some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from zmule import compat
from zmule.compat import state, uwsgi
from zmule.compat.translate import as_bytes
from zmule.core.frames import DIRECT, FARM, SIGNAL
from zmule.core.inbox import Delivery
from zmule.core.queues import source_of
from zmule.mules.mule import Mule, as_delivery
from zmule.mules.traces import show


def serve(mule: Mule) -> NoReturn:
    """Run the hooks, then answer signals and calls, until the mule is to end: then raise as a get does."""
    compat.post_fork()
    if not _hooks():
        mule.settle()
    while True:
        sources = SIGNAL | (DIRECT | FARM if _hooks() else 0)
        delivery = mule.receive(sources, None, as_delivery, handle=0)
        assert delivery is not None
        if source_of(delivery.queue) == SIGNAL:
            mule.run(delivery)
        else:
            _give(mule, delivery)


def _hooks() -> list[Callable[[bytes], object]]:
    hook = vars(uwsgi).get("mule_msg_hook")
    return [*state.message_hooks, hook] if callable(hook) else state.message_hooks


def _give(mule: Mule, delivery: Delivery) -> None:
    """Give a message to the hooks. If one of them raises, it is delivered again."""
    try:
        for hook in _hooks():
            hook(as_bytes(delivery.body))
    except Exception as error:
        show(error)
        mule.nack()
    else:
        mule.ack()
