"""Who drives a client's connection: whichever thread waits for something.

A thread that waits polls, without the mutex; so a confirmed send costs one round trip and no change of
threads. Others that come meanwhile send what they have by themselves, and wait for the one that polls;
when that one has what it waits for, the next takes over. Only messages that nobody waits for, and locks
that are held, need somebody to look after them: a `pump` thread, made when it is first needed.

Messages that nobody waits for are posted without the mutex. Who posts sends them, too, as soon as they fill
a frame; or else who polls does, after `LINGER_SECONDS`, for as long as `awake` says so. While it does not,
the next one that is posted has to `stir`, which sends it at once.

A handler of the program's may run between any two lines: a signal's, a `__del__`, a callback of a weak
reference. It may call the client again. So a thread says in `inside` which of its frames is at work here; a
call that finds such a frame on its own stack is nested, and must not come in: the client has another driver
for it. Or the handler raises. So all that touches the session is a *step*, run as a whole with the mutex
held by `guarded`, which never blocks; waiting is done outside. A step that was not run to its end has left
the session *torn*, and the next one begins by mending it. What else a thread has promised and not done,
others find out by themselves: nobody sleeps for longer than a pause without a look of his own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from sys import _getframe, is_finalizing
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from zmule.connection import Bell, Connection, TooManyFiles, poll
from zmule.core.outbox import Outbox
from zmule.errors import ZmuleError

P = ParamSpec("P")
T = TypeVar("T")

LINGER_SECONDS = 0.001
LONGEST_POLL = 3600.0
PAUSES = (0.05, 1.0)
"""Seconds after which a thread that waits for another to poll looks by itself: at first, and at most."""


class Driver:
    """The threads of a client, and its connection.

    Attributes:
        outbox: the session.
        inside: by thread, the frame that is at work here.
        awake: whether somebody looks soon whether there are posted messages.
        shut: whether nothing more may be posted.
        closed: whether it is over.
        ending: whether it is since the process ends.
        leaving: when to give up what nobody waits for, and to close then: nobody has the client any more.
    """

    def __init__(self, endpoint: str, outbox: Outbox) -> None:
        self.outbox = outbox
        self.inside: dict[int, FrameType] = {}
        self.awake = self.shut = self.closed = self.ending = False
        self.leaving = inf
        self._mutex = threading.RLock()
        self._torn = self._abandoned = False
        self._connection = Connection(endpoint, outbox)
        self._bell = Bell(silent=True)
        self._poller = 0
        self._poller_waits = False
        self._sleepers: deque[threading.Lock] = deque()
        self._wakes_at = inf
        self._given_up: deque[tuple[int, int, tuple[Any, ...]]] = deque()
        self._pump: Pump | None = None
        self._departed: Callable[[Driver], None] = lambda _: None

    # Coming in.

    def enter(self, frame: FrameType) -> bool:
        """Note that this thread works here; return False if a frame of its does already."""
        me = threading.get_ident()
        if me in self.inside and _is_below(self.inside[me], frame):
            return False
        self.inside[me] = frame
        return True

    def leave(self) -> None:
        """Note that this thread does not work here any more."""
        self.inside.pop(threading.get_ident(), None)
        if self.outbox.posted and not self.awake and not self.shut:
            self.stir()  # posted by a nested call, which could not

    def guarded(self, step: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run a step with the mutex held. Only between `enter` and `leave`.

        A real handler never strikes between the end of a step and the release of the mutex, but a tracing
        debugger does.
        """
        try:
            with self._mutex:
                if self._torn:
                    self._mend()
                self._torn = True
                result = step(*arguments, **options)
                self._torn = False
                return result
        except BaseException:
            while self._mutex._is_owned():  # type: ignore[attr-defined]
                self._mutex.release()
            self._rouse()
            raise

    def _mend(self) -> None:
        self._connection.mend()
        self._poller = 0
        self._tell()
        self._bell.ring()

    def _rouse(self) -> None:
        """Have others look, without the mutex."""
        self._bell.ring()
        self._wake_pump()

    # Waiting.

    def wait(self, done: Callable[[], bool], limit: float) -> bool:
        """Send what there is, and wait until `done()`; return False after `limit` seconds.

        `done` is run as part of a step.

        Raises:
            ZmuleError: the broker has turned the session away, or the client was closed.
        """
        deadline = time.monotonic() + limit
        ready: set[int] = set()
        pause, alone = PAUSES[0], False
        try:
            while True:
                seat = self.guarded(self._look, done, deadline, ready, alone)
                if isinstance(seat, bool):
                    return seat
                if seat is None:
                    ready, alone = self._poll(), False
                else:
                    alone = not seat.acquire(timeout=max(0.0, min(pause, deadline - time.monotonic())))
                    pause = min(2 * pause, PAUSES[1])
        except BaseException:
            self.guarded(self._hand_over)
            raise

    def _poll(self) -> set[int]:
        wait = self._wakes_at - time.monotonic()
        return poll((self._connection.descriptor, self._bell.descriptor), wait)

    def _look(
        self, done: Callable[[], bool], deadline: float, ready: set[int], alone: bool
    ) -> bool | threading.Lock | None:
        """Return whether it is done or over; or else where to sleep, None for the place at the descriptors.

        `alone`: nobody has told a thread that slept of anything. If there is something, who polls does not
        do so: it is held up in a handler, or was interrupted.
        """
        if self.closed or self.outbox.error is not None:
            self.check()
        taken = self.exchange(woken=self._answered_bell(ready) or alone)
        if taken and alone:
            self._poller = 0
        if done():
            self._hand_over()
            return True
        if self.outbox.error is not None:
            self.check()
        now = time.monotonic()
        if now >= deadline:
            self._hand_over()
            return False
        if self._poller and self._poller != threading.get_ident():
            seat = threading.Lock()
            seat.acquire()
            self._sleepers.append(seat)
            return seat
        self._sit_down(min(deadline, now + LONGEST_POLL), waits=True)
        return None

    def _answered_bell(self, ready: set[int]) -> bool:
        """Return whether a poll of this thread's has found anything; it polls no more."""
        if self._poller == threading.get_ident():
            self._poller = 0
        if self._bell.descriptor in ready:
            self._bell.silence()
        return bool(ready)

    def _sit_down(self, until: float, *, waits: bool) -> None:
        """Poll from here on, until then or until something is due."""
        self._poller_waits = waits
        self._wakes_at = min(until, self._soonest(time.monotonic()))
        self._poller = threading.get_ident()

    def _hand_over(self) -> None:
        """Poll no more; others may have to."""
        if self._poller == threading.get_ident():
            self._poller = 0
        if not self._poller:
            if self._sleepers:
                self._tell()
            if self._pump is not None and (self.awake or self.outbox.expecting()):
                self._wake_pump()

    def _tell(self) -> None:
        """Wake up those who sleep."""
        while self._sleepers:
            seat = self._sleepers[0]
            if seat.locked():
                seat.release()
            self._sleepers.popleft()

    def _soonest(self, now: float) -> float:
        """Return when there is something to do even if nothing comes."""
        return min(self._connection.next_deadline(now), now + LINGER_SECONDS if self.awake else inf)

    # Steps.

    def check(self) -> None:
        """Raise if there is nothing to hope for any more."""
        if self.outbox.error is not None:
            raise self.outbox.error
        if self.closed and self.ending and threading.current_thread() is not threading.main_thread():
            raise SystemExit  # it ends the thread in silence, as the end of the process would in a moment
        if self.closed:
            raise ZmuleError("this client is closed")

    def admit(self) -> None:
        """Raise if no message may be accepted that nobody waits for."""
        self.check()
        if self.shut:
            raise ZmuleError("this client is being closed")

    def exchange(self, *, woken: bool = False) -> int:
        """Send what there is and take in what has come, without waiting; return how many frames came."""
        now = time.monotonic()
        try:
            self.awake = False  # before the look: what is posted after it is stirred for, the rest is seen
            if self._given_up:
                self.take_back()
            self.awake = self.outbox.absorb() and not self.shut
            if not self._poller:
                self._connection.renew(now)
                if self._bell.descriptor < 0:
                    self._bell.open()
            taken = self._connection.exchange(now, woken=woken)
        except TooManyFiles:
            raise
        except ZmuleError as error:
            self.outbox.error = error
            self.awake = False
            self._tell()
            raise
        if taken and self._sleepers:
            self._tell()
        if not self._poller:
            if self.awake:
                self.look_after()
        elif (taken and self._poller_waits) or self._soonest(now) < self._wakes_at:
            self._bell.ring()
        return taken

    def clear(self) -> None:
        """Send what was posted, so that there is room for more."""
        self.admit()
        self.exchange()

    def awaken(self) -> None:
        """See to it that what is not sent yet is looked after soon."""
        if not self.awake:
            self.awake = True
            if self._poller and self._soonest(time.monotonic()) < self._wakes_at:
                self._bell.ring()
        self.look_after()

    # Posted messages, and locks that are given up: without the mutex, and nested as well.

    def stir(self) -> None:
        """Send what was posted, and see to it that it is looked after."""
        if not self.enter(_getframe()):
            self._rouse()
            return
        try:
            self.guarded(self._stir)
        finally:
            self.inside.pop(threading.get_ident(), None)

    def _stir(self) -> None:
        self.admit()
        self.exchange()
        self.look_after()

    def give_up(self, thread: int, request: int, arguments: tuple[Any, ...]) -> None:
        """Have a lock given up, whether it is held or waited for: that request of a thread's for it."""
        self._given_up.append((thread, request, arguments))
        if not (self.closed or sys.is_finalizing()):  # when no thread can be started any more
            self._bell.ring()
            self.look_after()

    def take_back(self) -> None:
        """Tell the broker which locks are given up. A step."""
        questions = self.outbox.questions
        while self._given_up:
            thread, request, arguments = self._given_up[0]
            if (number := questions.find(arguments)) is not None:
                questions.withdraw(number)
            questions.remind("give_up_lock", (thread, request))
            self.outbox.let_go(request)
            self._given_up.popleft()

    # The pump.

    def look_after(self) -> None:
        """Have the pump thread poll whenever something is due and nobody else does."""
        pump = self._pump
        if pump is not None and pump.is_alive():
            pump.wake()
            return
        if is_finalizing():  # a thread would never begin
            self.awake = False
            return
        pump = self._pump = Pump(self._pumping)
        try:
            pump.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end: who posts does it all
            self._pump, self.awake = None, False

    def _wake_pump(self) -> None:
        pump = self._pump
        if pump is not None:
            pump.wake()

    def _pumping(self, pump: Pump) -> None:
        self.enter(_getframe())
        ready: set[int] = set()
        try:
            while (wait := self.guarded(self._pump_turn, pump, ready)) is not None:
                ready = set()
                if wait < 0:
                    ready = self._poll()
                else:
                    pump.sleep(wait)
        finally:
            self.inside.pop(threading.get_ident(), None)

    def _pump_turn(self, pump: Pump, ready: set[int]) -> float | None:
        """Return for how long to sleep, a negative number for the place at the descriptors, None to end."""
        if self._abandoned:  # a greenlet that was forked, too: as a thread it cannot end, for it is none here
            return LONGEST_POLL
        woken = self._answered_bell(ready)
        if self.closed or self._pump is not pump:
            return None
        try:
            self.check()
            if woken or self._busy():
                self.exchange(woken=woken)
        except TooManyFiles:
            if self.leaving == inf:
                return PAUSES[1]
            self._depart()
            return None
        except ZmuleError:  # the next message finds that out, too, and makes another pump
            self._pump, self.awake = None, False
            if self.leaving < inf:
                self._depart()
            return None
        if self.leaving < inf and (not self._busy() or time.monotonic() >= self.leaving):
            self._depart()
            return None
        if not self._busy():
            return LONGEST_POLL
        if self._poller:
            return PAUSES[1]
        self._sit_down(min(time.monotonic() + LONGEST_POLL, self.leaving), waits=False)
        return -1.0

    def _busy(self) -> bool:
        return bool(self.awake or self.outbox.posted or self._given_up or self.outbox.expecting())

    # The end.

    def shut_off(self) -> None:
        """Let nothing more be posted, so that a flush leaves nothing behind. A step."""
        self.shut, self.awake = True, False

    def close(self) -> None:
        """End the threads and close the socket. Between `enter` and `leave`."""
        self.guarded(self._close)
        pump = self._pump
        if pump is not None and pump is not threading.current_thread() and pump.is_alive():
            pump.join()
        self.guarded(self._let_go)

    def _close(self) -> None:
        self.closed = True
        self.awake = False
        self._bell.ring()
        self._tell()
        self._wake_pump()

    def _let_go(self) -> None:
        self._connection.close()
        self._bell = Bell(silent=True)

    def dismiss(self, until: float, departed: Callable[[Driver], None]) -> None:
        """Nobody has the client any more: send what is left, until then at most, close, and say so.

        Called from wherever the last reference went: it neither waits nor takes the mutex.
        """
        self._departed = departed
        self.leaving = until
        pump = self._pump
        if pump is not None and pump.is_alive():
            self._rouse()
        elif self.unfinished() and self.outbox.error is None:
            self.look_after()
            if self._pump is None:
                self._depart()
        else:
            self._depart()

    def _depart(self) -> None:
        """Close at last. By the only thread that still knows this driver."""
        if not self.closed:
            self.closed = True
            self._let_go()
            self._departed(self)

    def unfinished(self) -> int:
        """Return how many messages have no answer yet."""
        return self.outbox.unconfirmed()

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's alone."""
        self.closed = self._abandoned = True
        self._connection.abandon()
        self._bell = Bell(silent=True)


class Pump(threading.Thread):
    """The thread that looks after what nobody waits for, and what wakes it up."""

    def __init__(self, work: Callable[[Pump], None]) -> None:
        super().__init__(target=work, args=(self,), name="zmule-pump", daemon=True)
        self._call = threading.Lock()
        self._call.acquire()

    def sleep(self, wait: float) -> None:
        """Sleep until somebody calls; so many seconds at most."""
        self._call.acquire(timeout=min(wait, LONGEST_POLL))

    def wake(self) -> None:
        """End the sleep, or the next one."""
        if self._call.locked():
            try:
                self._call.release()
            except RuntimeError:  # another thread was quicker
                return


def _is_below(former: FrameType, frame: FrameType | None) -> bool:
    """Return whether a frame is among those that have led to another."""
    while frame is not None:
        if frame is former:
            return True
        frame = frame.f_back
    return False
