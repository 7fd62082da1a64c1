"""What becomes of messages that nobody waited for when their client goes, or its process ends.

They leave: in the background if the program has dropped its client, before the end if it is the process's.
What cannot be sent in time is counted on standard error. Python has several ends: `atexit`, for programs and
what `os.fork` makes of them, and the finalizers of `multiprocessing`, whose processes do not run the former.
Threads may go on sending after either; then each message is waited for.

`os._exit`, `os.exec*` and a kill are no ends that anybody is told of.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

from zmule.clients.driver import Driver
from zmule.errors import ZmuleError

if TYPE_CHECKING:
    from zmule.clients.sync import Client

CLOSE_TIMEOUT = 5.0
LAST = -1000
"""When to run, of all finalizers of a process of `multiprocessing`: others may still send."""

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_departing: set[Driver] = set()
_over = _watching = 0


def over() -> bool:
    """Return whether this process has come to its end: nothing will be flushed any more."""
    return _over == os.getpid() or not threading.main_thread().is_alive()


def watch(client: Client, drivers: list[Driver]) -> None:
    """See to it that what the client has posted leaves, whatever becomes of the client."""
    _clients.add(client)
    weakref.finalize(client, _dropped, drivers).atexit = False
    if _watching != os.getpid():
        watch_child()


def watch_child() -> None:
    """Have this process flushed at its end, also if `multiprocessing` has made it."""
    global _watching
    _watching = os.getpid()
    _departing.difference_update([driver for driver in _departing if driver.closed])
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, flush_all, exitpriority=LAST)
        # A child forgets the finalizers of its parent first.
        util.register_after_fork(_departing_owner, _begin_child)


class _Owner:
    """What `multiprocessing` knows this module by."""


_departing_owner = _Owner()


def _begin_child(_: object) -> None:
    watch_child()


def _dropped(drivers: list[Driver]) -> None:
    """Nobody has the client any more."""
    for driver in drivers:
        if not driver.closed and not sys.is_finalizing():
            _departing.add(driver)
            driver.dismiss(time.monotonic() + CLOSE_TIMEOUT, _departed)


def _departed(driver: Driver) -> None:
    _departing.discard(driver)
    if left := driver.unfinished():
        print(f"zmule: {left} messages of a client that was dropped are unconfirmed", file=sys.stderr)


@atexit.register
def flush_all() -> None:
    """When the process ends: wait for what is unconfirmed, but not for long, and say what is left."""
    global _over
    _over = os.getpid()
    deadline = time.monotonic() + CLOSE_TIMEOUT
    for client in list(_clients):
        client.post_no_more()
    for client in list(_clients):
        try:
            client._flush_rest(max(0.0, deadline - time.monotonic()))
        except ZmuleError as error:
            print(f"zmule: at exit: {error}", file=sys.stderr)
    for driver in list(_departing):
        _await(driver, deadline)


def _await(driver: Driver, deadline: float) -> None:
    if not driver.enter(sys._getframe()):
        return
    try:
        driver.wait(lambda: not driver.unfinished(), max(0.0, deadline - time.monotonic()))
        if not driver.closed:
            _departed(driver)
    except ZmuleError:  # it is over, which was told
        return
    finally:
        driver.inside.clear()
