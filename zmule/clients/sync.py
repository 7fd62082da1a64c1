"""The client for threads: what a user calls. `zmule.clients.driver` carries it out."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from zmule import process
from zmule.clients import ending, rounds
from zmule.clients.driver import Driver
from zmule.clients.ending import CLOSE_TIMEOUT
from zmule.clients.lock import Claim, Holder, Lock
from zmule.core.frames import Answer, Body, Headers
from zmule.core.outbox import Envelope, Outbox, plain, seal
from zmule.core.questions import check_question, expect
from zmule.core.queues import ANY, byte_size, check_signal, farm_queue, mule_queue, signal_queue
from zmule.core.terms import wished
from zmule.core.wire import detail
from zmule.endpoints import check_endpoint, default_endpoint
from zmule.errors import (
    BrokerUnavailable,
    Deadlock,
    NotHolder,
    QueueFull,
    ZmuleError,
    from_code,
    too_large,
)

if TYPE_CHECKING:
    from datetime import datetime

DEFAULT_TIMEOUT = 5.0


class Client:
    """A connection to the broker for any number of threads.

    It connects at the first call, reconnects by itself, and may be used on both sides of a fork: the
    child has a session of its own, and what was unconfirmed stays the parent's.

    Args:
        endpoint: the broker's endpoint; default `ZMULE_ENDPOINT`, else the place where a broker without
            configuration would be.
        timeout: seconds that a call waits for the broker before it raises `BrokerUnavailable`.
        outbox_messages: how many messages may be sent and not confirmed.
        outbox_bytes: of how many bytes in all.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        outbox_messages: int = 10_000,
        outbox_bytes: int = 64 << 20,
    ) -> None:
        self.endpoint = endpoint or default_endpoint(os.environ)
        check_endpoint(self.endpoint)
        self.timeout = timeout
        self._limits = (min(outbox_messages, 60_000), outbox_bytes)
        self._closed = False
        self._locals: list[threading.local] = []
        self._drivers: list[Driver] = []
        process.register(self)
        ending.watch(self, self._drivers)

    # What sleeps and what tells threads apart is made at the first call: a worker of a web server loads its
    # application, or is forked, before gevent makes greenlets of its threads.

    @property
    def _holder(self) -> Holder:
        """What this thread holds."""
        if not self._locals:
            self._locals.append(threading.local())
        local = self._locals[0]  # if two threads make one at once, the first one counts
        try:
            holder: Holder = local.holder
        except AttributeError:
            holder = local.holder = Holder()
        return holder

    def _first(self) -> Driver:
        """Return the driver of the first session. If two threads begin it at once, the first one counts."""
        if not self._drivers:
            self._begin()
        return self._drivers[0]

    def _begin(self) -> Driver:
        """Begin a session with nothing in it."""
        most_messages, most_bytes = self._limits
        outbox = Outbox(os.urandom(16), most_messages=most_messages, most_bytes=most_bytes, pid=os.getpid())
        outbox.prompt = ending.over()
        driver = Driver(self.endpoint, outbox)
        driver.closed = self._closed
        self._drivers.append(driver)
        return driver

    def after_fork(self) -> None:
        """In the child: leave the parent's connection alone, and begin anew."""
        if not self._closed:
            for driver in self._drivers:
                driver.abandon()
            self._drivers.clear()
            self._locals.clear()
            ending.watch_child()

    def _enter(self, frame: FrameType) -> Driver:
        """Return a driver in which the thread whose frame that is does not work already.

        It is the first one, unless the call is nested in another one of this client's.
        """
        self._first()
        for driver in self._drivers:
            if driver.enter(frame):
                return driver
        driver = self._begin()
        driver.enter(frame)
        return driver

    # What a user calls.

    def mule_msg(
        self,
        message: Body,
        mule: int = 0,
        *,
        wait: bool = True,
        headers: Headers | None = None,
        timeout: float | None = None,
        delay: float | None = None,
        at: float | datetime | None = None,
        ttl: float | None = None,
    ) -> bool:
        """Send a message to a mule. Stands for `uwsgi.mule_msg`.

        Args:
            message: text or bytes, received as what it was sent as.
            mule: the mule's number; 0 for the first available programmed mule.
            wait: return when the broker has accepted it. Otherwise at once: `flush` waits and tells.
            headers: a few plain values that travel along.
            timeout: seconds to wait, also for room if the queue is full, in the order in which messages
                were sent. Without it a full queue is an error at once, and the broker gets the client's own
                timeout to answer.
            delay: seconds for which not to deliver it.
            at: when to deliver it at the earliest, as a Unix time or a `datetime`.
            ttl: seconds after which nobody wants it any more: what has not been delivered by then becomes a
                dead letter.

        Returns:
            True.

        Raises:
            UnknownMule, NotProgrammed, MessageTooLarge, QueueFull: it was not accepted, and why.
            BrokerUnavailable: the broker did not answer in time. The message may have been accepted.
        """
        if type(mule) is not int or mule < 0:
            raise ValueError(f"a mule's number is 0 or more, not {mule!r}")
        envelope = to_mule(mule)
        if headers is not None or delay is not None or at is not None or ttl is not None:
            envelope = seal(envelope.queue, headers, wished(delay, at, ttl))
        if wait or timeout is not None:
            return self._send(envelope, message, wait, timeout)
        return self._post(envelope, message)

    def farm_msg(
        self,
        farm: str,
        message: Body,
        *,
        wait: bool = True,
        headers: Headers | None = None,
        timeout: float | None = None,
        delay: float | None = None,
        at: float | datetime | None = None,
        ttl: float | None = None,
    ) -> bool:
        """Send a message to the first available mule of a farm. Stands for `uwsgi.farm_msg`.

        Args, returns and errors are those of `mule_msg`, and `UnknownFarm`.
        """
        envelope = seal(farm_queue(farm), headers, wished(delay, at, ttl))
        if wait or timeout is not None:
            return self._send(envelope, message, wait, timeout)
        return self._post(envelope, message)

    def signal(self, number: int, *, timeout: float | None = None) -> None:
        """Raise a signal: every process that it is for runs its handler once. Stands for `uwsgi.signal`.

        Args:
            number: 0 to 255.
            timeout: seconds to wait for the broker, default the client's own.

        Raises:
            QueueFull: it waits too many times already.
            BrokerUnavailable: the broker did not answer in time. It may have been raised.
        """
        self._send(plain(signal_queue(check_signal(number))), b"", True, timeout, patient=False)

    def call(self, function: str, readers: str, arguments: bytes, *, timeout: float | None = None) -> None:
        """Have a function run by a mule that has registered it: what `@mulefunc` is made of.

        Args:
            function: its name.
            readers: `any`, `mule:N` or `farm:NAME`.
            arguments: what it is called with, as bytes.
            timeout: seconds to wait for the broker, default the client's own.
        """
        self._send(Envelope(f"call:{function}:{readers}"), arguments, True, timeout)

    def lock(self, name: int | str = 0, *, timeout: float | None = None, blocking: bool = True) -> Lock:
        """Return a lock, to be used by `with`. Stands for `uwsgi.lock`.

        Args:
            name: 0 or the number of one that is configured, or any name.
            timeout: seconds to wait for it, None for ever.
            blocking: False: do not wait at all.
        """
        return Lock(self, name, timeout, blocking)

    def is_locked(self, name: int | str = 0) -> bool:
        """Return whether anybody holds the lock. Stands for `uwsgi.is_locked`."""
        return bool(self._ask("is_locked", name))

    def acquire_lock(self, name: int | str, timeout: float | None, *, blocking: bool = True) -> int:
        """Hold a lock; `Lock.acquire` tells the rest."""
        wait = -1.0 if timeout is None else float(timeout)
        holder = self._holder
        former = holder.claims.get(name)
        round = rounds.begin(holder.rounds.get(name), sys._getframe())
        claim: Claim | None = None
        driver = self._enter(sys._getframe())
        try:
            if former is not None and former.driver is not driver:
                raise Deadlock(
                    f"deadlock: this thread holds lock {name!r} already, and would wait for itself"
                )
            claim = Claim(driver, holder.number, (name, holder.number, wait, blocking))
            claim.token = expect(int, self._asking(driver, "lock", claim.arguments, None, timeout, claim))
            claim.round = round
            holder.claims[name] = claim
            driver.guarded(driver.outbox.hold, claim.request)
            driver.guarded(driver.look_after)
            return claim.token
        except BaseException:
            if claim is not None:
                claim.drop()
            self.drop_lock(name, besides=former)
            raise
        finally:
            driver.leave()

    def release_lock(self, name: int | str) -> None:
        """Let go of a lock; `Lock.release` tells the rest."""
        holder = self._holder
        claim = holder.claims.pop(name, None)
        if claim is not None and claim.round is not None and rounds.end(claim.round):
            holder.rounds[name] = claim.round
        if claim is None or claim.driver not in self._drivers:
            self._ask("unlock", name, holder.number)
        elif claim.driver.enter(sys._getframe()):
            try:
                self._unlock(claim, name)
            finally:
                claim.drop()
                claim.driver.leave()
        else:  # nested in a call over the same connection, which cannot be used now
            claim.drop()

    def _unlock(self, claim: Claim, name: int | str) -> None:
        try:
            self._asking(claim.driver, "unlock", (name, claim.thread), None)
        except NotHolder:
            claim.over = True
            raise
        claim.over = True
        claim.driver.guarded(claim.driver.outbox.let_go, claim.request)

    def claim_of(self, name: int | str) -> Claim | None:
        """Return what this thread has of a lock, by what it knows."""
        return self._holder.claims.get(name)

    def drop_lock(self, name: int | str, *, besides: Claim | None) -> None:
        """Let go in the background of what an interrupted call has got of a lock; `besides` stays."""
        claim = self._holder.claims.get(name)
        if claim is not None and claim is not besides:
            del self._holder.claims[name]
            claim.drop()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent with `wait=False` has been answered for.

        Args:
            timeout: seconds to wait, default the client's own; time in which confirms keep coming does
                not count.

        Raises:
            ZmuleError: messages were refused; the first one's error, with how many there were.
            QueueFull: some still wait for room, and may go on doing so.
            BrokerUnavailable: some are still unconfirmed. They stay in the outbox.
        """
        limit = self.timeout if timeout is None else timeout
        for driver in list(self._drivers):
            if driver.enter(sys._getframe()):  # what a call further down this stack is about is its business
                try:
                    self._flush(driver, limit)
                finally:
                    driver.leave()

    def _flush(self, driver: Driver, limit: float) -> None:
        outbox = driver.outbox
        while left := outbox.unconfirmed():
            if not driver.wait(lambda left=left: outbox.unconfirmed() < left, limit):  # type: ignore[misc]
                raise self._unfinished(outbox, limit, left)
        if outbox.failed:
            count, refusals = driver.guarded(outbox.failures_since)
            first = next(iter(refusals.values()))
            more = f" (and {count - 1} more were refused)" if count > 1 else ""
            raise from_code(first.code, first.reason + more)

    def status(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the broker's status, as `zmule status --json` prints it."""
        status: dict[str, Any] = _as_lists(expect(dict, self._ask("status", timeout=timeout)))
        return status

    def dead_list(
        self, queue: str = "", *, after: int = 0, limit: int = 100, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return dead letters by ascending id: `count` has how many there are, `letters` what was asked for.

        Args:
            queue: only those of this queue: `any`, `mule:N` or `farm:NAME`.
            after: only those with a higher id, to go on from an earlier list.
            limit: how many at most, up to 1000.
            timeout: seconds to wait for the broker, default the client's own.
        """
        found: dict[str, Any] = _as_lists(
            expect(dict, self._ask("list_dead", queue, after, limit, timeout=timeout))
        )
        return found

    def dead_show(self, id: int, timeout: float | None = None) -> dict[str, Any]:
        """Return one dead letter with its whole `body` and its `headers`.

        Raises:
            UnknownLetter: there is none of that id.
        """
        letter: dict[str, Any] = _as_lists(expect(dict, self._ask("show_dead", id, timeout=timeout)))
        return letter

    def dead_requeue(
        self,
        ids: Iterable[int] = (),
        *,
        queue: str = "",
        every: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Bring dead letters back into their queues, as if they had never been delivered.

        Args:
            ids: which ones.
            queue: all those of this queue instead.
            every: all that there are instead.
            timeout: seconds to wait for the broker, default the client's own.

        Returns:
            How many.

        Raises:
            UnknownLetter: one is not there, and nothing was done.
            ZmuleError: some had to stay, and why; the text says how many were requeued.
        """
        chosen = _chosen(ids, queue, every)
        if chosen is None:
            return 0
        outcome = expect(dict, self._ask("requeue_dead", *chosen, timeout=timeout))
        requeued, left = detail(outcome, "requeued", int), detail(outcome, "left", int)
        if left:
            text = f"{requeued} dead letters were requeued, {left} had to stay: {outcome.get('reason')}"
            raise from_code(detail(outcome, "code", str), text)
        return requeued

    def dead_drop(
        self,
        ids: Iterable[int] = (),
        *,
        queue: str = "",
        every: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Forget dead letters for good; return how many.

        Args are those of `dead_requeue`, and so is `UnknownLetter`.
        """
        chosen = _chosen(ids, queue, every)
        return 0 if chosen is None else expect(int, self._ask("drop_dead", *chosen, timeout=timeout))

    def backup(self, timeout: float = 3600.0) -> str:
        """Have the broker make a copy of its store's file, beside it; return its path on the broker's host.

        The next one takes its place. `zmule backup` checks it and moves it away.

        Args:
            timeout: seconds to wait for it.

        Raises:
            StoreUnavailable: there is no room for it, or the store has no file.
        """
        return expect(str, self._ask("backup", timeout=timeout))

    def ping(self, timeout: float | None = None) -> float:
        """Return how long one round trip to the broker takes, in seconds."""
        self.max_message(timeout)  # so that the connection is there
        before = time.monotonic()
        self._ask("ping", timeout=timeout)
        return time.monotonic() - before

    def max_message(self, timeout: float | None = None) -> int:
        """Return how long a message may be, in bytes."""
        driver = self._enter(sys._getframe())
        try:
            self._connect(driver, self.timeout if timeout is None else timeout)
            return driver.outbox.max_message
        finally:
            driver.leave()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Flush, then disconnect. A closed client stays closed.

        Args:
            timeout: seconds to wait for confirms.

        Raises:
            ZmuleError: as `flush`.
        """
        drivers = list(self._drivers)
        for driver in drivers:
            driver.shut, driver.awake = True, False
        try:
            self._flush_rest(timeout)
        finally:
            self._end()

    def close_at_exit(self) -> None:
        """Close it since the process ends: threads that wait for something are not told, but end."""
        for driver in self._drivers:
            driver.ending = True
        self.close()

    def _end(self) -> None:
        """Disconnect. A session with a call further down this stack is closed when that is over."""
        self._closed = True
        for driver in self._drivers:
            if driver.enter(sys._getframe()):
                try:
                    driver.close()
                finally:
                    driver.leave()
            else:
                driver.closed = True

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # the exception under way must not be replaced by one about the outbox
            lost = isinstance(error, BrokerUnavailable)
            with contextlib.suppress(ZmuleError):
                self.close(timeout=0 if lost else CLOSE_TIMEOUT)

    # Sending and asking.

    def post_no_more(self) -> None:
        """Wait for each message from here on: at the end of a process nobody looks after what is posted."""
        for driver in self._drivers:
            driver.outbox.prompt = True
            driver.outbox.spare, driver.outbox.small = 0, -1

    def _flush_rest(self, timeout: float) -> None:
        """Flush if there is anything to, as at the end of the process."""
        unfinished = any(driver.outbox.unconfirmed() or driver.outbox.failed for driver in self._drivers)
        if unfinished and not self._closed:
            self.flush(timeout)

    def _unfinished(self, outbox: Outbox, limit: float, left: int) -> ZmuleError:
        reason = outbox.waits_for_room()
        if reason is not None and outbox.state == "up":
            return QueueFull(f"{left} messages wait for room: {reason}")
        return self._unavailable(limit, f"{left} messages are unconfirmed")

    def _post(self, envelope: Envelope, message: Body) -> bool:
        """Have a message sent that nobody waits for: the short way, for what is small and fits.

        It takes no mutex, and may be nested in whatever the session is in the middle of.
        """
        if type(message) is str:
            size = len(message) if message.isascii() else len(message.encode())
        elif type(message) is bytes:
            size = len(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        driver = self._drivers[0] if self._drivers else self._first()
        outbox = driver.outbox
        if size > outbox.small or (len(outbox.posted) >= outbox.spare and not self._make_room(driver)):
            return self._send(envelope, message, outbox.prompt, None)
        outbox.posted.append((envelope, message, size, outbox.confirmed))
        if not driver.awake:
            driver.stir()
        return True

    def _make_room(self, driver: Driver) -> bool:
        """Send what was posted, and wait until more may be; return False if nested in another call."""
        if not driver.enter(sys._getframe()):
            return False
        try:
            driver.guarded(driver.clear)
            self._fit(driver, self.timeout)
            driver.guarded(driver.outbox.see_to_spare)
            return True
        finally:
            driver.leave()

    def _send(
        self, envelope: Envelope, message: Body, wait: bool, timeout: float | None, *, patient: bool = True
    ) -> bool:
        if type(message) is not str and type(message) is not bytes:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        size = byte_size((message,))
        limit = self.timeout if timeout is None else timeout
        until = time.monotonic() + limit if patient and timeout is not None else None
        driver = self._enter(sys._getframe())
        try:
            outbox = driver.outbox
            while not (ticket := driver.guarded(self._put, driver, envelope, message, size, wait, until)):
                self._connect(driver, limit)
                if size > outbox.max_message:
                    raise too_large(size, outbox.max_message)
                self._fit(driver, limit)
            error = self._outcome(driver, ticket, limit) if wait else None
        finally:
            driver.leave()
        if error is not None:
            raise error
        return True

    def _put(
        self, driver: Driver, envelope: Envelope, message: Body, size: int, wait: bool, until: float | None
    ) -> int:
        """Return the message's ticket, 0 if it cannot be taken yet. A step."""
        outbox = driver.outbox
        (driver.check if wait else driver.admit)()
        if size > outbox.max_message or not outbox.fits():
            return 0
        ticket = outbox.add(envelope, message, size, awaited=wait, until=until)
        if not wait:
            if outbox.fills_a_frame() or not driver.awake:
                driver.exchange()
            driver.awaken()
        return ticket

    def _outcome(self, driver: Driver, ticket: int, limit: float) -> ZmuleError | None:
        """Wait for the answer about a message; return why it was refused."""
        outbox = driver.outbox
        outcome: list[ZmuleError | None] = []

        def answered() -> bool:
            if outbox.answered(ticket):
                outcome.append(outbox.outcome(ticket))
            return bool(outcome)

        try:
            if driver.wait(answered, limit):
                return outcome[0]
            return driver.guarded(outbox.abandon, ticket) or self._unavailable(
                limit, "the message is unconfirmed"
            )
        except BaseException:
            driver.guarded(outbox.abandon, ticket)
            raise

    def _connect(self, driver: Driver, limit: float) -> None:
        """Have been welcomed once: only then the broker's limits are known."""
        outbox = driver.outbox
        if not outbox.max_message and not driver.wait(lambda: outbox.max_message > 0, limit):
            raise self._unavailable(limit)

    def _fit(self, driver: Driver, limit: float) -> None:
        """Wait until the outbox takes a message."""
        outbox = driver.outbox
        if not (outbox.fits() or driver.wait(outbox.roomy, limit) or outbox.fits()):
            raise QueueFull(f"the outbox is full: {outbox.unconfirmed()} messages are unconfirmed")

    def _ask(self, what: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Ask the broker, and wait for its answer."""
        driver = self._enter(sys._getframe())
        try:
            return self._asking(driver, what, arguments, timeout)
        finally:
            driver.leave()

    def _asking(
        self,
        driver: Driver,
        what: str,
        arguments: tuple[Any, ...],
        timeout: float | None,
        patience: float | None = 0,
        claim: Claim | None = None,
    ) -> Any:
        """Ask the broker, and wait for its answer: `patience` seconds more than for others, None for ever."""
        limit = self.timeout if timeout is None else timeout
        questions = driver.outbox.questions
        check_question(what, arguments)
        self._connect(driver, limit)
        answers: list[Answer | None] = []
        request = 0

        def answered() -> bool:
            if not answers and questions.answered(request):
                answers.append(questions.answer(request))
            return bool(answers)

        try:
            request = driver.guarded(self._put_question, driver, what, arguments, claim)
            while not driver.wait(answered, limit + (patience or 0)):
                if patience is not None or driver.outbox.state != "up":
                    raise self._unavailable(limit, f"no answer to {what!r}")
        except BaseException:
            driver.guarded(self._withdraw, driver, arguments)
            if claim is not None:
                claim.drop()
            raise
        answer = answers[0]
        if answer is None:
            raise ZmuleError("the client was closed meanwhile")
        if answer.code:
            if claim is not None:
                claim.over = True
            raise from_code(answer.code, str(answer.value))
        return answer.value

    def _put_question(
        self, driver: Driver, what: str, arguments: tuple[Any, ...], claim: Claim | None
    ) -> int:
        driver.check()
        driver.take_back()
        if claim is not None:
            claim.request = driver.outbox.questions.upcoming
        return driver.outbox.questions.ask(what, arguments)

    def _withdraw(self, driver: Driver, arguments: tuple[Any, ...]) -> None:
        questions = driver.outbox.questions
        if (number := questions.find(arguments)) is not None:
            questions.withdraw(number)

    def _unavailable(self, limit: float, what: str = "") -> ZmuleError:
        from zmule.reach import no_answer

        return no_answer(self.endpoint, limit, what)


@lru_cache(maxsize=4096)
def to_mule(mule: int) -> Envelope:
    """Return the envelope of messages with nothing but a mule's number, or 0 for any mule."""
    return plain(mule_queue(mule) if mule else ANY)


def _chosen(ids: Iterable[int], queue: str, every: bool) -> tuple[tuple[int, ...], str] | None:
    """Return how a question names dead letters: nothing named means all. None: there is nothing to ask."""
    chosen = tuple(ids)
    if (chosen != ()) + (queue != "") + every > 1:
        raise ValueError("name dead letters by their ids, by a queue, or ask for every one")
    return (chosen, queue) if chosen or queue or every else None


def _as_lists(value: Any) -> Any:
    """Return the value as JSON would have it: the wire gives tuples for lists."""
    if isinstance(value, dict):
        return {name: _as_lists(item) for name, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
