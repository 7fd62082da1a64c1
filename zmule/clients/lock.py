"""A lock of the broker's, held by one thread at a time of all processes."""

from __future__ import annotations

import sys
import threading
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any

from zmule.clients.rounds import Round
from zmule.core.lockservice import THREAD_BITS

if TYPE_CHECKING:
    from zmule.clients.driver import Driver
    from zmule.clients.sync import Client


class Claim:
    """A lock that a thread asks for or holds: whoever drops a claim, by whatever exception, lets go of it.

    Attributes:
        driver: of the connection that the lock belongs to.
        thread: who holds it.
        arguments: what the broker is asked.
        request: the number of that question; 0 if it has none yet.
        token: the fencing token, once it is held.
        over: whether there is nothing to let go of.
        round: what a thread of a mule has it for.
    """

    request = token = 0
    over = False
    round: Round | None = None

    def __init__(self, driver: Driver, thread: int, arguments: tuple[Any, ...]) -> None:
        self.driver = driver
        self.thread = thread
        self.arguments = arguments

    def drop(self) -> None:
        """Let go of the lock in the background, unless that is done. May be called from anywhere."""
        if not self.over:
            self.over = True
            if self.request and not sys.is_finalizing():  # no thread can begin then, and all is let go of
                self.driver.give_up(self.thread, self.request, self.arguments)

    def __del__(self) -> None:
        self.drop()


class Holder:
    """What a thread holds by one client. It drops that when the thread ends.

    Attributes:
        number: tells this thread from all others that the process ever had, since numbers of the system's
            are used again; its lower half is the system's.
        claims: what it holds, by name.
        rounds: of the locks under which it has got a message, in a mule: the last one of each.
    """

    def __init__(self) -> None:
        self.number = next(_threads) << THREAD_BITS | threading.get_native_id()
        self.claims = Claims()
        self.rounds: dict[int | str, Round] = {}


class Claims(dict[int | str, Claim]):
    """The claims of a thread, by name. They go when the thread does."""

    def __del__(self) -> None:
        for claim in list(self.values()):
            claim.drop()


_threads = count(1)


class Lock:
    """A lock, as `Client.lock` gives it; a context manager. Stands for `uwsgi.lock` and `uwsgi.unlock`.

    Waiters are served in their order. The lock is freed when its holder's thread ends, or its process dies or
    loses its connection. Who must be sure to be still the holder passes `token` on: it grows with every
    grant, so that what comes from a former holder can be told and refused.

    Attributes:
        token: the fencing token of the present holding, None while it is not held.
    """

    _entered: Claim | None = None

    def __init__(self, client: Client, name: int | str, timeout: float | None, blocking: bool) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._blocking = blocking
        self.token: int | None = None

    def acquire(self) -> int:
        """Wait for the lock, and hold it; return the fencing token.

        Raises:
            Deadlock: this thread holds it already.
            LockBusy: it is not free, and the lock does not block.
            LockTimeout: it was not to be had in time.
            UnknownLock: there is no lock of that number.
        """
        former = self._client.claim_of(self._name)
        try:
            token = self.token = self._client.acquire_lock(self._name, self._timeout, blocking=self._blocking)
            return token
        except BaseException:
            self._client.drop_lock(self._name, besides=former)
            raise

    def release(self) -> None:
        """Let go of the lock.

        If an exception of a handler's comes in between, that is done in the background.

        Raises:
            NotHolder: this thread does not hold it, or has lost it with its connection.
        """
        self.token = None
        self._client.release_lock(self._name)

    def __enter__(self) -> Lock:
        former = self._client.claim_of(self._name)
        try:
            self.acquire()
            self._entered = self._client.claim_of(self._name)
            return self
        except BaseException:
            self._entered = None
            self._client.drop_lock(self._name, besides=former)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
            self._entered = None
        except BaseException:
            self._drop()
            raise

    def __del__(self) -> None:
        self._drop()  # an exception came before `__exit__` could begin

    def _drop(self) -> None:
        if self._entered is not None:
            self._entered.drop()
            self._entered = None
