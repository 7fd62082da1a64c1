"""What each thread of a mule is working on, and what becomes of it when the thread ends.

A thread that returns has finished what it got last. One that an exception ends has not: what it had is given
up on at once. Where the program has a hook of its own for the exceptions of threads, nobody can tell the one
from the other, and what a thread had when it ended is not finished.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import cast

from zmule.core.inbox import Arrival, Hand, Inbox


class ThreadHand(Hand):
    """The hand of a thread."""

    __slots__ = ("thread",)

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        self.thread = thread


class Hands:
    """The hands of a mule's threads. What does not say otherwise needs the mutex held.

    Args:
        inbox: where they take messages from.
        mutex: guards the inbox.
        gave_up: called, with the mutex held, when what a thread had was given up on.

    Attributes:
        local: has the `hand` of each thread that has ever got a message.
    """

    def __init__(self, inbox: Inbox, mutex: threading.Lock, gave_up: Callable[[], None]) -> None:
        self.local = threading.local()
        self._inbox = inbox
        self._mutex = mutex
        self._gave_up = gave_up
        _all.add(self)

    def add(self) -> ThreadHand:
        """Note that this thread is one that gets messages; return its hand. Without the mutex."""
        hand = self.local.hand = ThreadHand(threading.current_thread())
        with self._mutex:
            self._inbox.hands.add(hand)
        return hand

    def at_work(self) -> int:
        """Return how many are at work. The mutex is not needed."""
        return sum(hand.arrival is not None for hand in list(self._inbox.hands))

    def still_at_work(self) -> int:
        """Return how many are at work, and settle first what threads that have ended were working on."""
        self.sweep()
        return self.at_work()

    def let_go(self, how: Callable[[Arrival], None]) -> bool:
        """Be done, in this way, with what this thread got last; return whether there was anything."""
        hand: ThreadHand | None = getattr(self.local, "hand", None)
        return hand is not None and _empty(hand, how)

    def sweep(self) -> None:
        """Settle what threads that have ended were working on."""
        hands = cast(set[ThreadHand], self._inbox.hands)
        for hand in [hand for hand in hands if not hand.thread.is_alive()]:
            hands.remove(hand)
            failed = hand.thread in _failures or threading.excepthook is not _note_failure
            _empty(hand, self._inbox.fail if failed else self._inbox.finish)

    def thread_failed(self, thread: threading.Thread) -> None:
        """Give up on what a thread was working on that an exception has ended. Without the mutex."""
        with self._mutex:
            for hand in cast(set[ThreadHand], self._inbox.hands):
                if hand.thread is thread and _empty(hand, self._inbox.fail):
                    self._gave_up()


def _empty(hand: Hand, how: Callable[[Arrival], None]) -> bool:
    if hand.arrival is None:
        return False
    arrival, hand.arrival = hand.arrival, None
    how(arrival)
    return True


_all: weakref.WeakSet[Hands] = weakref.WeakSet()
_failures: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_excepthook = threading.excepthook


def _note_failure(arguments: threading.ExceptHookArgs) -> None:
    """Remember threads that ended by an exception, then do what would have been done."""
    clean = isinstance(arguments.exc_value, SystemExit) and not arguments.exc_value.code
    if arguments.thread is not None and not clean:
        _failures.add(arguments.thread)
        for hands in list(_all):
            hands.thread_failed(arguments.thread)
    _excepthook(arguments)


threading.excepthook = _note_failure
