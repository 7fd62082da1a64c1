"""What a mule and a worker are made of: threads that block in gets, and a receiver behind them.

Plain code is crash-safe: a thread's next get acknowledges what this thread got before, and `close` (a
clean end of the program) acknowledges the last one of each. What is not acknowledged, since the thread
raised or the process was killed, is delivered again.

Signals and calls come the same way, to threads that are in a get, and are dealt with there: the get goes
on when their handler has run.

The program's threads hold no lock here. What belongs to the receiver they have it do; what they do themselves
are single steps, after each of which a handler of an operating system signal may use the mule for something
else, or raise.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

from zmule import process
from zmule.clients import rounds
from zmule.core.frames import SIGNAL, STRAY, Body
from zmule.core.inbox import Arrival, Delivery, Inbox
from zmule.core.wire import MAX_SECONDS
from zmule.endpoints import check_endpoint, default_endpoint
from zmule.errors import BrokerUnavailable, MuleStopped, ZmuleError, from_code
from zmule.mules import ending
from zmule.mules.hands import Hands, ThreadHand
from zmule.mules.naps import Getter, Nap, Watch
from zmule.mules.receiver import Receiver
from zmule.mules.signals import Handlers
from zmule.mules.takeover import Takeover
from zmule.reach import no_answer

T = TypeVar("T")

ANSWER_SECONDS = 10.0
FAREWELL_SECONDS = 2.0
MANY_ACKS = 500
"""So many are reported at once; fewer a moment later."""

HANDLED = SIGNAL | STRAY
"""What comes from there is not for the program, but for its handlers."""

LOOK_SECONDS = 1.0
"""Most that a get with timeout 0 waits for the broker to say that there is nothing."""

BODY: Callable[[Arrival], Body] = itemgetter(1)


class Interrupted(Exception):
    """A get was ended by an operating system signal that the program handles."""


class Engine:
    """A process that a broker delivers to.

    Registers at once, and again after every loss of the connection, with pauses that grow. Used by any
    number of threads, and by handlers in the middle of them. In a forked child it is unusable: the registered
    one is the parent.

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
        self._watches: list[Watch] = []
        self._supervised = bool(token)
        self._takeover: Takeover | None = None
        self._stop_signal = self._came = 0
        self._stopping = self._halted = self._signalled = self._kicked = False
        self._told = self._ended = self._closed = False
        self._inbox = Inbox(
            os.urandom(16), number=number, farms=farms, program=program, pid=self._pid, token=token, role=role
        )
        self.handlers = Handlers()
        self._hands = Hands(self._inbox, lambda action: self._receiver.do(action))
        self._own = self._hands.local  # here, as a get saves what it can
        self._receiver = Receiver(self.endpoint, self._inbox, self._notice)
        process.register(self)
        self._receiver.start()
        self._register(timeout)
        if role == "mule":
            rounds.watch(self._hands)

    def _register(self, timeout: float | None) -> None:
        registered = False
        try:
            registered = self._until(lambda: self._inbox.epoch or self._inbox.error, timeout)
            if self._inbox.error is not None:
                raise self._inbox.error
            if not registered:
                raise self._receiver.shortage or no_answer(self.endpoint, timeout or 0.0)
        except BaseException:
            self._closed = True
            self._receiver.close()
            raise

    def after_fork(self) -> None:
        """In the child: the mule is the parent, this is none."""
        self._inbox.lost()
        self._inbox.hands = set()
        self._hands = Hands(self._inbox, lambda action: None)
        self._own = self._hands.local
        if not self._closed:
            self._closed = True
            self._receiver.abandon()

    def ack(self) -> None:
        """Acknowledge now the message that this thread got last, instead of at its next get."""
        if self._settle_last():
            self._receiver.ring()

    def nack(self, delay: float | None = None, *, dead: bool = False) -> None:
        """Give up on the message that this thread got last: it will be delivered again.

        Args:
            delay: seconds until then; None: at once the first time, and after growing pauses from then on.
            dead: make a dead letter of it instead, however often it was delivered.
        """
        if delay is not None and not 0 <= delay <= MAX_SECONDS:
            raise ValueError(f"a delay is a number of seconds from 0 to {MAX_SECONDS:.0f}, not {delay!r}")
        hand = self._hands.mine()
        if hand.arrival is not None:
            hand.verdict = delay, dead
            self.ack()

    def _settle_last(self) -> bool:
        hand = self._hands.mine()
        if hand.verdict is not None:
            return self._inbox.give_up(hand)
        return self._inbox.done(hand)

    def stop(self) -> None:
        """Take no more messages: gets raise `MuleStopped` as soon as their thread holds none."""
        self._stopping = self._halted = True
        self._receiver.wake()

    def close(self) -> None:
        """Acknowledge what this thread and threads that have ended got last, and leave the broker.

        What other threads are still working on will be delivered again.
        """
        self._end(self._settle_last)

    def abort(self) -> None:
        """Leave the broker without acknowledging what this thread got last: the program has failed."""
        self._end(lambda: None)

    def _end(self, finish: Callable[[], object]) -> None:
        if self._closed or self._pid != os.getpid():
            return
        self._told = True
        finish()
        self._stopping = self._halted = True
        self._receiver.do(self._say_goodbye)
        self._until(self._left, FAREWELL_SECONDS)
        self._receiver.close()
        self._closed = True

    def _say_goodbye(self) -> None:
        self._hands.sweep()
        self._inbox.bid_farewell()

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

    def own_process(self, stop_signal: int = signal.SIGTERM) -> None:
        """Have the process be this mule's: signals stop it, and so does a get that is not to come back.

        To be called once, in the main thread. SIGTERM, SIGINT and `stop_signal`, by which `zmuled` stops it,
        stop the mule; handlers of the program's end interruptible gets.
        """
        self._stop_signal = stop_signal
        self._takeover = Takeover({signal.SIGTERM, signal.SIGINT, stop_signal}, self._on_signal)
        self._receiver.listen(self._takeover.alarm, self._interrupt)

    def end(self) -> None:
        """The program has ended: nothing is raised in the main thread any more."""
        self._ended = self._told = True

    def settle(self) -> None:
        """Tell the broker that the application is loaded."""
        self._receiver.do(self._inbox.settle)

    @property
    def stopping(self) -> bool:
        """Whether the mule is to end."""
        return self._halted

    def look_again(self) -> None:
        """Interrupt the gets that can be. For the receiver to do."""
        for getter in list(self._inbox.waiters):
            nap = getter.nap() if isinstance(getter, Getter) else None
            if nap is not None and nap.interruptible:
                nap.interrupted = True
                nap.wake()

    def has_waited(self) -> bool:
        """Return whether any thread has ever waited for something: what the mule runs is loaded then."""
        return bool(self._inbox.hands)

    def working(self) -> int:
        """Return how many threads are working on a message."""
        self._until(lambda: True, ANSWER_SECONDS)  # has those noticed that have ended
        return self._hands.at_work()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Ask the broker; return its answer.

        Raises:
            ZmuleError: the broker refuses, and why.
            BrokerUnavailable: it does not answer.
        """
        question = _Question(self._inbox, what, arguments)
        self._receiver.do(question.put)
        try:
            if not self._until(lambda: question.answered() or self._inbox.error, ANSWER_SECONDS):
                text = f"no answer to {what!r} from {self.endpoint} in {ANSWER_SECONDS:g} s"
                raise BrokerUnavailable(text)
        finally:
            self._receiver.do(question.withdraw)
        if question.error is not None or not question.over:
            raise question.error or self._inbox.error or ZmuleError("the mule was closed meanwhile")
        answer = question.answer
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
        """Have this process killed by `zmuled`, which has started it, in so many seconds; 0: not any more.

        Returns when that is said: what follows may never let another thread run.
        """
        self._receiver.do(partial(self._inbox.tell, "set_deadline", seconds))
        self._until(lambda: True, ANSWER_SECONDS)

    def want(self, what: str, *arguments: Any) -> None:
        """Ask, and have the same asked at every registration to come. Errors are those of `ask`."""
        self.ask(what, *arguments)
        self.note(what, *arguments)

    def note(self, what: str, *arguments: Any) -> None:
        """Have it asked at every registration to come."""
        self._receiver.do(partial(self._inbox.want, what, *arguments))

    def unwant(self, what: str, *arguments: Any) -> None:
        """Have it asked no more; `arguments` may be just the first ones."""
        self._receiver.do(partial(self._inbox.unwant, what, *arguments))

    def receive(
        self,
        sources: int,
        timeout: float | None,
        read: Callable[[Arrival], T],
        *,
        interruptible: bool = False,
        handle: int = HANDLED,
    ) -> T | None:
        """Wait for a message from the sources (bits of `core.frames`); what the gets are made of.

        Acknowledges what this thread got before. If this raises, nobody has seen the message: so what is made
        of it is made in here.

        Args:
            sources: where it may come from.
            timeout: seconds to wait, 0 to look only, None for ever.
            read: what to make of it.
            interruptible: whether to raise `Interrupted`.
            handle: what is not for the caller: signals and calls are dealt with on the way.

        Raises:
            Interrupted: the program's handler of an operating system signal has run.
        """
        try:
            hand: ThreadHand = self._own.hand
        except AttributeError:
            hand = self._hands.mine()
        last = hand.arrival
        try:
            inbox, receiver = self._inbox, self._receiver
            arrival = inbox.advance(hand, 0 if self._halted else sources)
            if arrival is None or arrival[2].source & handle:
                arrival = self._go_on(hand, arrival, sources, timeout, interruptible, handle)
            elif len(inbox.acks) >= MANY_ACKS:
                receiver.hurry()
            elif not receiver.awake:
                receiver.ring()
            return None if arrival is None else read(arrival)
        except BaseException:
            self._inbox.put_down(hand, last)
            self._receiver.wake()
            raise

    def _go_on(
        self,
        hand: ThreadHand,
        arrival: Arrival | None,
        sources: int,
        timeout: float | None,
        interruptible: bool,
        handle: int,
    ) -> Arrival | None:
        """Deal with signals and calls, and wait, until there is a message."""
        end = None if timeout is None else monotonic() + timeout
        while True:
            if arrival is None:
                arrival = self._wait(hand, sources, timeout, interruptible)
            if arrival is None or not arrival[2].source & handle:
                return arrival
            self.run(Delivery(*arrival))
            timeout = None if end is None else max(0.0, end - monotonic())
            arrival = self._inbox.advance(hand, 0 if self._halted else sources)

    def run(self, delivery: Delivery) -> int | None:
        """Run what a signal or call asks for, and acknowledge it; return the signal's number.

        If the handler ends the program, it has run, too; only if it dies with it, it is run again.
        """
        try:
            return self.handlers.run(delivery)
        finally:
            self.ack()

    def _wait(
        self, hand: ThreadHand, sources: int, timeout: float | None, interruptible: bool
    ) -> Arrival | None:
        """Sleep until there is a message in the buffers, and take it; None if the time is over.

        Another thread may be quicker to take what this one was woken up for.
        """
        end = None if timeout is None else monotonic() + timeout
        probe = timeout == 0
        while True:
            self._check(hand)
            nap = Nap(interruptible=interruptible)
            getter = Getter(sources, nap)
            self._receiver.do(partial(self._inbox.wait, getter, probe=probe))
            try:
                if not self._receiver.over:
                    nap.sleep(LOOK_SECONDS if probe else _lock_timeout(end))
            finally:
                self._receiver.do(partial(self._inbox.leave, getter))
            if nap.interrupted:
                raise Interrupted
            arrival = self._inbox.advance(hand, 0 if self._halted else sources)
            if arrival is not None or probe or (end is not None and monotonic() >= end):
                if arrival is None:
                    self._check(hand)
                return arrival

    def _check(self, hand: ThreadHand) -> None:
        """Raise if this thread shall get no message: the mule is ending, or is none any more.

        The main thread is told to end only after the others have finished their work, since its end is
        that of the process. Whoever has been told and asks again has not understood: he never comes back.
        """
        if self._pid != os.getpid():
            raise ZmuleError(f"this process is a fork of mule {self._inbox.number}, not that mule")
        if self._receiver.is_current():
            raise ZmuleError("a finalizer cannot get messages")
        main = hand.thread is threading.main_thread()
        if self._stops(main):
            if main and not self._closed:
                self._until(lambda: not self._hands.at_work(hand), None)
            self._tell(hand, main, MuleStopped(0))
        if self._inbox.error is not None:
            self._tell(hand, main, self._inbox.error)

    def _stops(self, main: bool) -> bool:
        """Return whether a thread's gets are over.

        A program that handles the stop signal itself is told by that: its main thread ends when it likes, or
        at the first get after its handler has run.
        """
        if self._stopping or self._closed:
            return True
        if not self._halted or not main or self._takeover is None:
            return self._halted
        return self._signalled or self._takeover.ours(self._stop_signal)

    def _tell(self, hand: ThreadHand, main: bool, news: BaseException) -> NoReturn:
        ends = self._takeover is not None and not (main and self._ended)
        if ends and (hand.told or (main and self._told)):
            self._stay(hand, main, 0 if isinstance(news, MuleStopped) else 1)
        hand.told = True
        self._told = self._told or main
        raise news

    def stay_if_told(self) -> None:
        """Never come back if this thread has been told that the mule ends, and goes on all the same."""
        hand = self._hands.mine()
        main = hand.thread is threading.main_thread()
        if self._takeover is not None and hand.told and not (main and self._ended):
            self._stay(hand, main, 0)

    def _stay(self, hand: ThreadHand, main: bool, status: int) -> NoReturn:
        """Never come back: the process ends meanwhile, and if this is the main thread, by it."""
        hand.parked = True
        if main:
            self.end()
            if status:
                self.abort()
            ending.leave(status)
        self._receiver.wake()
        while True:
            Nap().sleep(-1)

    # Inside.

    def _until(self, condition: Callable[[], object], timeout: float | None) -> bool:
        """Sleep until the condition holds, which the receiver looks at after each of its turns."""
        if self._pid != os.getpid():
            raise ZmuleError(f"this process is a fork of mule {self._inbox.number}, not that mule")
        if self._receiver.is_current():
            raise ZmuleError("a finalizer cannot wait for the broker")
        nap = Nap()
        self._receiver.do(partial(self._watches.append, Watch(condition, nap)))
        if self._receiver.over:
            return bool(condition())
        nap.sleep(-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        return nap.woken

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop: here and now if nobody works on anything, else when the last one has finished.

        Runs in the main thread, between any two of its instructions. However often it comes, it is one stop:
        to a group it is sent twice. Without a `zmuled` to end its mercy, a second Ctrl-C does not wait.
        """
        assert self._takeover is not None
        if self._pid != os.getpid():
            self._takeover.pass_on(number)
            return
        again = number == self._came == signal.SIGINT and not self._kicked and not self._supervised
        self._came, self._kicked = number, False
        self._stopping = self._halted = True
        self._receiver.wake()
        if self._ended:
            if self._hands.only_parked():
                ending.cut_off(0)
        elif again and self._hands.at_work():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not (self._told or self._takeover.forking or _waits(frame) or self._hands.at_work()):
            self._told = True
            raise MuleStopped(0)

    def _interrupt(self, signals: bytes) -> None:
        """Have the main thread run handlers: the system may have chosen another thread, which does not."""
        assert self._takeover is not None
        of_program = [number for number in signals if not self._takeover.ours(number)]
        self._signalled = self._signalled or self._stop_signal in of_program
        for nap in self._naps():
            if nap.main and nap.interruptible and of_program:
                nap.interrupted = True
                nap.wake()
            elif nap.main:
                nap.nudge()

    def _naps(self) -> list[Nap]:
        sleepers: list[Getter | Watch] = [*cast(list[Getter], list(self._inbox.waiters)), *self._watches]
        return [nap for sleeper in sleepers if (nap := sleeper.nap()) is not None]

    def _notice(self) -> None:
        """Something happened that a thread may wait for. By the receiver."""
        self._hands.sweep()
        if self._supervised and self._inbox.stop_asked:
            self._halted = True
        over = self._receiver.over or self._closed
        for getter in cast(list[Getter], list(self._inbox.waiters)):
            nap = getter.nap()
            if nap is None:
                self._inbox.leave(getter)
            elif over or self._inbox.error is not None or self._stops(nap.main):
                nap.wake()
        for watch in list(self._watches):
            nap = watch.nap()
            if nap is None or over or watch.condition():
                self._watches.remove(watch)
                if nap is not None:
                    nap.wake()
        if self._takeover is not None and (self._came or self._ended):
            self._kick(self._takeover)

    def _kick(self, takeover: Takeover) -> None:
        """Have the main thread run its handler once more, now that nobody works any more."""
        main = cast(int, threading.main_thread().ident)
        if self._ended:
            due = self._hands.only_parked()
        else:
            due = not (self._told or self._hands.at_work() or _waits(sys._current_frames().get(main)))
        number = next(filter(takeover.ours, (self._came, signal.SIGTERM, signal.SIGINT)), 0)
        if due and number:
            self._kicked = True
            signal.pthread_kill(main, number)


class _Question:
    """A question to the broker, put and answered in the receiver."""

    def __init__(self, inbox: Inbox, what: str, arguments: tuple[Any, ...]) -> None:
        self._inbox = inbox
        self._question = what, *arguments
        self._request = 0
        self.over = False
        self.answer: Any = None
        self.error: Exception | None = None

    def put(self) -> None:
        try:
            self._request = self._inbox.ask(*self._question)
        except Exception as error:  # the caller's fault
            self.error = error

    def answered(self) -> bool:
        if self._request and not self.over and self._inbox.questions.answered(self._request):
            self.answer, self.over = self._inbox.questions.answer(self._request), True
        return self.over or self.error is not None

    def withdraw(self) -> None:
        if not self.over:
            self._inbox.questions.withdraw(self._request)


_WAITING = {Engine._wait.__code__, Engine._stay.__code__}


def _waits(frame: FrameType | None) -> bool:
    """Whether a thread that is in this frame is waiting in a get, and so told there."""
    while frame is not None:
        if frame.f_code in _WAITING:
            return True
        frame = frame.f_back
    return False


def _lock_timeout(end: float | None) -> float:
    return -1 if end is None else min(max(0.0, end - monotonic()), threading.TIMEOUT_MAX)
