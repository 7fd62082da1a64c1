"""What a mule and a worker are made of: threads that block in gets, and a receiver behind them.

Plain code is crash-safe: a thread's next get acknowledges what this thread got before, and `close` (a
clean end of the program) acknowledges the last one of each. What is not acknowledged, since the thread
raised or the process was killed, is delivered again.

Signals and calls come the same way, to threads that are in a get, and are dealt with there: the get goes
on when their handler has run.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Self, cast

from zmule import process
from zmule.core.frames import SIGNAL, STRAY
from zmule.core.inbox import Arrival, Delivery, Inbox, Waiter
from zmule.core.wire import MAX_SECONDS
from zmule.endpoints import check_endpoint, default_endpoint
from zmule.errors import BrokerUnavailable, MuleStopped, ZmuleError, from_code
from zmule.mules.hands import Hands, ThreadHand
from zmule.mules.receiver import Receiver
from zmule.mules.signals import Handlers

ANSWER_SECONDS = 10.0
FAREWELL_SECONDS = 2.0
MANY_ACKS = 500
"""So many are reported by the thread that finishes the last of them; fewer a moment later."""

HANDLED = SIGNAL | STRAY
"""What comes from there is not for the program, but for its handlers."""

LOOK_SECONDS = 1.0
"""Most that a get with timeout 0 waits for the broker to say that there is nothing."""


class _Waiter(Waiter):
    """A waiter whose thread sleeps on a lock.

    Attributes:
        woken: whether there is a reason to wait no longer.
    """

    __slots__ = ("interrupted", "interruptible", "lock", "main", "thread", "woken")

    def __init__(self, bits: int, interruptible: bool) -> None:
        super().__init__(bits)
        self.interruptible = interruptible
        self.interrupted = self.woken = False
        self.thread = threading.current_thread()
        self.main = self.thread is threading.main_thread()
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        self.woken = True
        self.nudge()

    def nudge(self) -> None:
        """Have the thread run for a moment, and so the handlers of signals, if it is the main thread."""
        if self.lock.locked():
            self.lock.release()

    def sleep(self, timeout: float) -> None:
        """Sleep until woken, so many seconds at most; -1: for as long as it takes."""
        end = monotonic() + timeout
        while self.lock.acquire(timeout=timeout) and not self.woken:
            timeout = timeout if timeout < 0 else max(0.0, end - monotonic())


class Interrupted(Exception):
    """A get was ended by an operating system signal that the program handles."""


class Engine:
    """A process that a broker delivers to.

    Registers at once, and again after every loss of the connection, with pauses that grow. Used by any
    number of threads. In a forked child it is unusable: the registered one is the parent.

    Args: those of `Mule`, and `role`, which is `mule` or `worker`, and `token`, the secret of a mule that
        `zmuled` has started.

    Attributes:
        handlers: what it does about signals and calls.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        farms: Iterable[str] = (),
        endpoint: str | None = None,
        program: str = "",
        timeout: float | None = 5.0,
        token: bytes = b"",
        role: str = "mule",
    ) -> None:
        if isinstance(farms, str):
            raise TypeError(f"farms is a list of names, not the text {farms!r}")
        self.endpoint = endpoint or default_endpoint(os.environ)
        check_endpoint(self.endpoint)
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._moved = threading.Condition(self._mutex)
        self._waiters: set[_Waiter] = set()
        self._supervised = bool(token)
        self._stopping = False
        self._inside = 0
        self._stop_signal = 0
        self._told = False
        self._closed = False
        self._inbox = Inbox(
            os.urandom(16), number=number, farms=farms, program=program, pid=self._pid, token=token, role=role
        )
        self.handlers = Handlers()
        self._hands = Hands(self._inbox, self._mutex, lambda: self._receiver.ring())
        self._own = self._hands.local  # here, as `_take` saves what it can
        self._receiver = Receiver(self.endpoint, self._inbox, self._mutex, self._notice)
        process.register(self)
        self._register(timeout)

    def _register(self, timeout: float | None) -> None:
        with self._mutex:
            registered = self._moved.wait_for(lambda: self._inbox.epoch or self._inbox.error, timeout)
            error = self._inbox.error
        if not registered or error is not None:
            self._receiver.close()
            self._closed = True
            raise error or BrokerUnavailable(
                f"no broker within reach at {self.endpoint} for {timeout:g} s: nobody answers"
            )

    def after_fork(self) -> None:
        """In the child: the mule is the parent, this is none."""
        if not self._closed:
            self._closed = True
            self._receiver.abandon()

    def ack(self) -> None:
        """Acknowledge now the message that this thread got last, instead of at its next get."""
        with self._mutex:
            self._finish_last()
            self._receiver.ring()

    def nack(self, delay: float | None = None, *, dead: bool = False) -> None:
        """Give up on the message that this thread got last: it will be delivered again.

        Args:
            delay: seconds until then; None: at once the first time, and after growing pauses from then on.
            dead: make a dead letter of it instead, however often it was delivered.
        """
        if delay is not None and not 0 <= delay <= MAX_SECONDS:
            raise ValueError(f"a delay is a number of seconds from 0 to {MAX_SECONDS:.0f}, not {delay!r}")
        with self._mutex:
            self._let_go(lambda arrival: self._inbox.fail(arrival, delay=delay, dead=dead))
            self._receiver.ring()

    def stop(self) -> None:
        """Take no more messages: gets raise `MuleStopped` as soon as their thread holds none."""
        with self._mutex:
            self._stopping = True
            self._notice()

    def close(self) -> None:
        """Acknowledge what this thread and threads that have ended got last, and leave the broker.

        What other threads are still working on will be delivered again.
        """
        self._end(self._finish_last)

    def abort(self) -> None:
        """Leave the broker without acknowledging what this thread got last: the program has failed."""
        self._end(lambda: None)

    def _end(self, finish: Callable[[], None]) -> None:
        if self._closed or self._pid != os.getpid():
            return
        self._told = True
        with self._mutex:
            finish()
            self._hands.sweep()
            self._stopping = True
            self._inbox.bid_farewell()
            self._notice()
            self._receiver.exchange()
            self._moved.wait_for(self._left, FAREWELL_SECONDS)
            self._closed = True
            self._notice()
        self._receiver.close()

    def _left(self) -> bool:
        """Return whether the broker has noted the farewell, or there is none to note it."""
        return self._inbox.gone or self._inbox.state != "up" or self._inbox.error is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, MuleStopped):
            self.close()
        else:
            self.abort()

    # What the runner calls.

    def settle(self) -> None:
        """Tell the broker that the application is loaded."""
        with self._mutex:
            self._inbox.settle()
            self._receiver.exchange()

    @property
    def stopping(self) -> bool:
        """Whether the mule is to end."""
        return self._stopping

    def has_waited(self) -> bool:
        """Return whether any thread has ever waited for something: what the mule runs is loaded then."""
        return bool(self._inbox.hands)

    def working(self) -> int:
        """Return how many threads are working on a message."""
        with self._mutex:
            return self._hands.still_at_work()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Ask the broker; return its answer.

        Raises:
            ZmuleError: the broker refuses, and why.
            BrokerUnavailable: it does not answer.
        """
        with self._mutex:
            questions, request = self._inbox.questions, self._inbox.ask(what, *arguments)
            self._receiver.exchange()
            self._moved.wait_for(lambda: questions.answered(request) or self._inbox.error, ANSWER_SECONDS)
            if not questions.answered(request):
                questions.withdraw(request)
                text = f"no answer to {what!r} from {self.endpoint} in {ANSWER_SECONDS:g} s"
                raise self._inbox.error or BrokerUnavailable(text)
            answer = questions.answer(request)
        if answer is None:
            raise ZmuleError("the mule was closed meanwhile")
        if answer.code:
            raise from_code(answer.code, str(answer.value))
        return answer.value

    @property
    def supervised(self) -> bool:
        """Whether `zmuled` has started this process, and can kill it."""
        return self._supervised and self._pid == os.getpid()

    def set_deadline(self, seconds: float) -> None:
        """Have this process killed by `zmuled`, which has started it, in so many seconds; 0: not any more."""
        with self._mutex:
            self._inbox.tell("set_deadline", seconds)
            self._receiver.exchange()

    def want(self, what: str, *arguments: Any) -> None:
        """Ask, and have the same asked at every registration to come. Errors are those of `ask`."""
        self.ask(what, *arguments)
        with self._mutex:
            self._inbox.want(what, *arguments)

    def unwant(self, what: str, *arguments: Any) -> None:
        """Have it asked no more; `arguments` may be just the first ones."""
        with self._mutex:
            self._inbox.unwant(what, *arguments)

    def receive(self, sources: int, timeout: float | None, *, interruptible: bool = False) -> Arrival | None:
        """Wait for a message from the sources (bits of `core.frames`); what the gets are made of.

        Acknowledges what this thread got before. Signals and calls are dealt with on the way.

        Raises:
            Interrupted: the program's handler of an operating system signal has run, and `interruptible`.
        """
        arrival = self._take(sources)
        if arrival is None or arrival[2].source & HANDLED:
            arrival = self._receive(arrival, sources, timeout, interruptible)
        return arrival

    def _receive(
        self, arrival: Arrival | None, sources: int, timeout: float | None, interruptible: bool
    ) -> Arrival | None:
        """Deal with signals and calls, and wait, until there is a message. Without the mutex."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            arrival = arrival or self._wait(sources, timeout, interruptible)
            if arrival is None or not arrival[2].source & HANDLED:
                return arrival
            self.run(Delivery(*arrival))
            timeout = None if end is None else max(0.0, end - monotonic())
            arrival = self._take(sources)

    def receive_any(self, sources: int, timeout: float | None) -> Delivery | None:
        """Wait for a message, signal or call; return it as it came. Otherwise as `receive`."""
        arrival = self._take(sources) or self._wait(sources, timeout, False)
        return arrival and Delivery(*arrival)

    def run(self, delivery: Delivery) -> int | None:
        """Run what a signal or call asks for, and acknowledge it; return the signal's number.

        If the handler ends the program, it has run, too; only if it dies with it, it is run again.
        """
        try:
            return self.handlers.run(delivery)
        finally:
            self.ack()

    def _take(self, sources: int) -> Arrival | None:
        """Acknowledge what this thread got before, and return the next message if it is at hand.

        Without the mutex, which costs a third of what the rest does: a mule with much to do comes here
        for each message.
        """
        try:
            hand: ThreadHand = self._own.hand
        except AttributeError:
            hand = self._hands.add()
        inbox, receiver, last = self._inbox, self._receiver, hand.arrival
        try:
            arrival = inbox.advance(hand, 0 if self._stopping else sources)
            if arrival is None:
                with self._mutex:
                    self._moved.notify_all()
            elif len(inbox.acks) >= MANY_ACKS:
                with self._mutex:
                    receiver.exchange()
            elif not receiver.awake:
                with self._mutex:
                    receiver.ring()
            return arrival
        except BaseException:  # a signal's handler has raised
            with self._mutex:
                inbox.put_down(hand, last)
                receiver.ring()
            raise

    def _wait(self, sources: int, timeout: float | None, interruptible: bool) -> Arrival | None:
        """Wait for a message. Without the mutex."""
        waiter = _Waiter(sources, interruptible)
        self._inside += waiter.main
        try:
            return self._sleep(waiter, timeout)
        finally:
            self._inside -= waiter.main

    def take_signals(self) -> None:
        """Have SIGTERM and SIGINT stop the mule, and handlers of the program's end interruptible gets.

        To be called once, in the main thread.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        alarm, wakeup = socket.socketpair()
        for end in (alarm, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)
        self._receiver.listen(alarm, self._interrupt)

    # Inside. What begins with an underscore is called with the mutex held, unless it says otherwise.

    def _on_signal(self, number: int, _frame: object) -> None:
        """Stop: here and now if nobody works on anything, else when the last one has finished.

        Runs in the main thread, between any two of its instructions, and so must not take the mutex. A
        second signal does not wait for the work.
        """
        again, self._stop_signal = self._stop_signal == number, number
        self._stopping = True
        self._receiver.wake()
        if self._hands.at_work():
            if again:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
        elif not self._inside and not self._told:
            self._told = True
            raise MuleStopped(0)

    def _sleep(self, waiter: _Waiter, timeout: float | None) -> Arrival | None:
        # Without the mutex.
        raised = True
        try:
            with self._mutex:
                self._stay_or_stop()
                self._inbox.wait(waiter, probe=timeout == 0)
                self._waiters.add(waiter)
                self._receiver.exchange()
            if waiter.delivery is None:
                waiter.sleep(_lock_timeout(timeout))
            raised = False
        finally:
            with self._mutex:
                self._waiters.discard(waiter)
                self._inbox.leave(waiter)
                if waiter.delivery is not None and raised:  # a KeyboardInterrupt: nobody has seen it
                    self._inbox.give_back(waiter.delivery)
                elif waiter.delivery is not None:
                    hand: ThreadHand = self._own.hand
                    hand.since = monotonic()
                    hand.arrival = waiter.delivery
                if self._inbox.news:
                    self._receiver.ring()
        if waiter.delivery is None:
            with self._mutex:
                self._stay_or_stop()
            if waiter.interrupted:
                raise Interrupted
        return waiter.delivery

    def _interrupt(self, signals: bytes) -> None:
        """Have the main thread run handlers: the system may have chosen another thread, which does not."""
        of_program = any(signal.getsignal(number) != self._on_signal for number in signals)
        for waiter in self._waiters:
            if waiter.main and waiter.interruptible and of_program:
                waiter.interrupted = True
                waiter.wake()
            elif waiter.main:
                waiter.nudge()

    def _stay_or_stop(self) -> None:
        """Raise if this thread shall get no message: the mule is ending, or is none any more.

        The main thread is told to end only after the others have finished their work, since its end is
        that of the process.
        """
        if self._pid != os.getpid():
            raise ZmuleError(f"this process is a fork of mule {self._inbox.number}, not that mule")
        if self._stopping and threading.current_thread() is threading.main_thread():
            self._moved.wait_for(lambda: self._closed or not self._hands.still_at_work())
        if self._stopping or self._closed:
            self._told = self._told or threading.current_thread() is threading.main_thread()
            raise MuleStopped(0)
        if self._inbox.error is not None:
            raise self._inbox.error

    def _finish_last(self) -> None:
        self._let_go(self._inbox.finish)

    def _let_go(self, how: Callable[[Arrival], None]) -> None:
        if self._hands.let_go(how):
            self._moved.notify_all()

    def _notice(self) -> None:
        """Something happened that a thread may wait for."""
        self._hands.sweep()
        if self._supervised and self._inbox.stop_asked:
            self._stopping = True
        if self._stopping or self._closed or self._inbox.error is not None:
            for waiter in self._waiters:
                waiter.wake()
            if self._stop_signal and not (self._hands.at_work() or self._inside or self._told):
                signal.pthread_kill(cast(int, threading.main_thread().ident), self._stop_signal)
        self._moved.notify_all()


def _lock_timeout(timeout: float | None) -> float:
    """Return the timeout of a lock for that of a get: a look (0) ends when the broker has answered it."""
    if timeout is None:
        return -1
    return min(timeout or LOOK_SECONDS, threading.TIMEOUT_MAX)
