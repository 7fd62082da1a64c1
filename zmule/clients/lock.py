"""A lock of the broker's, held by one thread at a time of all processes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmule.clients.sync import Client


class Lock:
    """A lock, as `Client.lock` gives it; a context manager. Stands for `uwsgi.lock` and `uwsgi.unlock`.

    Waiters are served in their order. The lock is freed when its holder's process dies or loses its
    connection. Who must be sure to be still the holder passes `token` on: it grows with every grant, so
    that what comes from a former holder can be told and refused.

    Attributes:
        token: the fencing token of the present holding, None while it is not held.
    """

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
        self.token = self._client.acquire_lock(self._name, self._timeout, blocking=self._blocking)
        return self.token

    def release(self) -> None:
        """Let go of the lock.

        Raises:
            NotHolder: this thread does not hold it, or has lost it with its connection.
        """
        self.token = None
        self._client.release_lock(self._name)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def thread_number() -> int:
    """Return what tells this thread from others of its process."""
    return threading.get_native_id()
