"""Who drives a client's connection: whichever thread waits for something.

A thread that waits polls, without the mutex; so a confirmed send costs one round trip and no change of
threads. Others that come meanwhile send what they have by themselves, and wait for the one that polls;
when that one has what it waits for, the next takes over. Only messages that nobody waits for, and locks
that are held, need somebody to look after them: a `pump` thread, made when it is first needed.

Messages that nobody waits for are posted without the mutex. Who posts sends them, too, as soon as they fill
a frame; or else who polls does, after `LINGER_SECONDS`, for as long as `awake` says so. While it does not,
the next one that is posted has to `stir`, which sends it at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

from zmule.connection import Bell, Connection, poll
from zmule.core.outbox import Outbox
from zmule.errors import ZmuleError

LINGER_SECONDS = 0.001
LONGEST_POLL = 3600.0


class Driver:
    """The threads of a client, and its connection. What does not say otherwise needs the mutex held.

    Attributes:
        mutex: guards the outbox and the socket.
        awake: whether somebody looks soon whether there are posted messages.
        shut: whether nothing more may be posted.
        closed: whether it is over.
    """

    def __init__(self, endpoint: str, outbox: Outbox) -> None:
        self.mutex = threading.Lock()
        self.awake = self.shut = self.closed = False
        self._outbox = outbox
        self._connection = Connection(endpoint, outbox)
        self._changed = threading.Condition(self.mutex)
        self._wanted = threading.Condition(self.mutex)
        self._bell = Bell()
        self._driving = self._driver_waits = False
        self._sleepers = 0
        self._wakes_at = inf
        self._pump: threading.Thread | None = None

    def wait(self, done: Callable[[], bool], limit: float) -> bool:
        """Send what there is, and wait until `done()`; return False after `limit` seconds.

        Raises:
            ZmuleError: the broker has turned the session away, or the client was closed.
        """
        deadline = time.monotonic() + limit
        self.check()
        self.exchange()
        while not done():
            self.check()
            left = min(deadline - time.monotonic(), LONGEST_POLL)
            if left <= 0:
                return False
            if self._driving:
                self._sleep(left)
            else:
                self._drive(left, waits=True)
        return True

    def check(self) -> None:
        """Raise if there is nothing to hope for any more."""
        if self._outbox.error is not None:
            raise self._outbox.error
        if self.closed:
            raise ZmuleError("this client is closed")

    def admit(self) -> None:
        """Raise if no message may be accepted that nobody waits for."""
        self.check()
        if self.shut:
            raise ZmuleError("this client is being closed")

    def exchange(self, *, woken: bool = False) -> None:
        """Send what there is and take in what has come, as far as that goes without waiting."""
        now = time.monotonic()
        taken = 1  # who polls has to know of a failure, too
        try:
            self.awake = False  # before the look: what is posted after it is stirred for, the rest is seen
            self.awake = self._outbox.absorb() and not self.shut
            if not self._driving:
                self._connection.renew(now)
            taken = self._connection.exchange(now, woken=woken)
        except ZmuleError as error:
            self._outbox.error = error
            raise
        finally:
            if self._outbox.error is not None:
                self.awake = False
            if taken:
                self._tell()
            if not self._driving:
                if self.awake:
                    self.look_after()
            elif (taken and self._driver_waits) or self._soonest(now) < self._wakes_at:
                self._bell.ring()

    def stir(self) -> None:
        """Send what was posted, and see to it that it is looked after. Without the mutex."""
        with self.mutex:
            self.admit()
            self.exchange()
            self.look_after()

    def shut_off(self) -> None:
        """Let nothing more be posted, so that a flush leaves nothing behind. Without the mutex."""
        with self.mutex:
            self.shut, self.awake = True, False

    def awaken(self) -> None:
        """See to it that what is not sent yet is looked after soon."""
        self.check()
        if not self.awake:
            self.awake = True
            if self._driving and self._soonest(time.monotonic()) < self._wakes_at:
                self._bell.ring()
        self.look_after()

    def look_after(self) -> None:
        """Have the pump thread drive whenever something is due and nobody else does."""
        if self._pump is None:
            self._pump = threading.Thread(target=self._pumping, name="zmule-pump", daemon=True)
            self._pump.start()
        else:
            self._wanted.notify()

    def close(self) -> None:
        """End the threads and close the socket. Without the mutex."""
        with self.mutex:
            self.closed = True
            self.awake = False
            self._bell.ring()
            self._tell()
            self._wanted.notify_all()
            while self._driving:
                self._sleep(LONGEST_POLL)
            self._connection.close()
            self._bell.close()
            pump = self._pump
        if pump is not None:
            pump.join()

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's alone."""
        self._connection.abandon()
        self._bell.close()

    def _sleep(self, limit: float) -> None:
        """Wait until there is something new, while another thread drives."""
        self._sleepers += 1
        try:
            self._changed.wait(limit)
        finally:
            self._sleepers -= 1

    def _tell(self) -> None:
        """Wake up those who sleep. A condition takes long to find out that nobody does."""
        if self._sleepers:
            self._changed.notify_all()

    def _soonest(self, now: float) -> float:
        """Return when there is something to do even if nothing comes."""
        return min(self._connection.next_deadline(now), now + LINGER_SECONDS if self.awake else inf)

    def _drive(self, left: float, *, waits: bool) -> None:
        """Wait until something comes or is due, and deal with it."""
        now = time.monotonic()
        self._wakes_at = min(now + left, self._soonest(now))
        self._driving, self._driver_waits = True, waits
        try:
            try:
                self.mutex.release()
                ready = poll((self._connection.descriptor, self._bell.descriptor), self._wakes_at - now)
            finally:
                self.mutex.acquire()
                self._driving = False
            if self._bell.descriptor in ready:
                self._bell.silence()
            if not self.closed:
                self.exchange(woken=bool(ready))
        finally:
            self._tell()
            if self._outbox.expecting():
                self._wanted.notify()

    def _pumping(self) -> None:
        with self.mutex:
            try:
                while not self.closed and self._outbox.error is None:
                    if self._driving or not (self.awake or self._outbox.expecting()):
                        self._wanted.wait()
                    else:
                        with suppress(ZmuleError):
                            self._drive(LONGEST_POLL, waits=False)
            finally:  # if it failed, the next message finds that out, too, and makes another
                self._pump, self.awake = None, False
