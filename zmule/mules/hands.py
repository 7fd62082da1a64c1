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

from zmule.clients.rounds import Token
from zmule.core.inbox import TAKING, Hand, Inbox


class ThreadHand(Hand):
    """The hand of a thread.

    Attributes:
        told: whether the thread has been told that there is nothing to get any more.
        parked: whether it has asked again, and waits for the end of the process.
    """

    __slots__ = ("parked", "thread", "told")

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        self.thread = thread
        self.told = self.parked = False


class Hands:
    """The hands of a mule's threads.

    Args:
        inbox: where they take messages from.
        soon: has the receiver do something.

    Attributes:
        local: has the `hand` of each thread that has ever got a message.
    """

    def __init__(self, inbox: Inbox, soon: Callable[[Callable[[], object]], None]) -> None:
        self.local = threading.local()
        self._inbox = inbox
        self._soon = soon
        _all.add(self)

    def mine(self) -> ThreadHand:
        """Return this thread's hand."""
        hand: ThreadHand | None = getattr(self.local, "hand", None)
        if hand is None:
            hand = ThreadHand(threading.current_thread())
            self._inbox.hands.add(hand)
            self.local.hand = hand
        return hand

    def in_hand(self) -> Token | None:
        """Return what this thread is working on."""
        hand: ThreadHand | None = getattr(self.local, "hand", None)
        arrival = None if hand is None else hand.arrival
        return None if arrival is None or arrival is TAKING else (arrival[0], arrival[2].epoch)

    def ack(self) -> None:
        """Acknowledge that, now."""
        self._inbox.done(self.mine())
        self._soon(lambda: None)

    def at_work(self, but: Hand | None = None) -> int:
        """Return how many are at work, but for one that does not count."""
        return sum(hand.arrival is not None and hand is not but for hand in list(self._inbox.hands))

    def only_parked(self) -> bool:
        """Return whether the interpreter would wait for parked threads only, and for ever."""
        parked = {hand.thread for hand in cast(set[ThreadHand], set(self._inbox.hands)) if hand.parked}
        left = {thread for thread in threading.enumerate() if not thread.daemon}
        return bool(parked) and left <= parked | {threading.main_thread()}

    def sweep(self) -> None:
        """Settle what threads that have ended were working on. By the receiver."""
        hands = cast(set[ThreadHand], self._inbox.hands)
        for hand in [hand for hand in list(hands) if not hand.thread.is_alive()]:
            hands.discard(hand)
            failed = hand.thread in _failures or threading.excepthook is not _note_failure
            self._inbox.end(hand, failed=failed)

    def thread_failed(self, thread: threading.Thread) -> None:
        """Give up on what a thread was working on that an exception has ended."""
        self._soon(lambda: self._give_up(thread))

    def _give_up(self, thread: threading.Thread) -> None:
        for hand in cast(set[ThreadHand], set(self._inbox.hands)):
            if hand.thread is thread:
                self._inbox.end(hand, failed=True)


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
