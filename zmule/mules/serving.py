"""The worker that a process is which is no mule: made when it is first needed, and again after a fork.

Nobody tells a process that it is a web server's worker. So whichever registers a handler or asks for its
worker's number is one. Handlers run in a thread of its own, one at a time.

A server that loads the application before it forks (gunicorn --preload) registers in a process that will
never serve: its master. That shows when it forks. Right before, it leaves the broker, so that no signal is
given to it from then on; each child registers what the master had registered, under a number of its own, as
soon as the broker is there. Children of such a child are no workers unless they ask to be, nor are those
that `multiprocessing` and `subprocess` make: they help the process that they come from, which stays what it
is.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import BuiltinFunctionType

from zmule.core.frames import SIGNAL, STRAY
from zmule.core.inbox import Delivery
from zmule.core.queues import check_signal
from zmule.endpoints import default_endpoint
from zmule.errors import MuleStopped, ZmuleError
from zmule.mules.engine import Interrupted
from zmule.mules.mule import Worker, as_delivery
from zmule.mules.origins import loading
from zmule.reach import no_answer

PATIENCE = 5.0
HELPED = ("multiprocessing", "subprocess", "pty")
"""Packages that call `os.fork` to make helpers."""


class ServingWorker(Worker):
    """A worker that has a thread for its handlers."""

    def __init__(self) -> None:
        self._ran: Counter[int] = Counter()
        self._last = self._watched = 0
        self._changed = threading.Condition()
        super().__init__(timeout=None)

    def serve(self) -> None:
        """Run handlers until the worker is closed."""
        while True:
            try:
                self._serve_one()
            except MuleStopped:
                return
            except SystemExit:
                print("zmule: a handler cannot end this process: not done", file=sys.stderr)
            except ZmuleError as error:
                print(f"zmule: this worker handles no more signals: {error}", file=sys.stderr)
                return

    def _serve_one(self) -> None:
        sources = SIGNAL | STRAY if self._watched else SIGNAL
        with suppress(Interrupted):
            self._run(self.receive(sources, None, as_delivery, interruptible=True, handle=0))

    def _run(self, delivery: Delivery | None) -> None:
        number = self.run(delivery) if delivery is not None else None
        if number is not None:
            with self._changed:
                self._ran[number] += 1
                self._last = number
                self._changed.notify_all()

    def loading(self) -> str:
        """Return the name of the module that this thread is loading: a worker never waits in its own code."""
        return loading(None)

    def signal_wait(self, number: int | None = None, timeout: float | None = None) -> int | None:
        """Wait until a signal has been handled; see `SignalRunner.signal_wait`."""
        if number is not None:
            check_signal(number)

        def count() -> int:
            return self._ran.total() if number is None else self._ran[number]

        with self._changed:
            before = count()
        self._watch(1)
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: count() > before, timeout):
                    return None
                return self._last if number is None else number
        finally:
            self._watch(-1)

    def _watch(self, more: int) -> None:
        """Have signals that nobody has registered served, too, while some thread waits for any."""
        with self._changed:
            self._watched += more
        self._receiver.do(self.look_again)

    def signal_received(self) -> int:
        """Return the signal that this process has handled last, 0 if none."""
        return self._last


class Serving:
    """The process as a worker.

    Attributes:
        hooks: called in a child that may become a worker; they return whether that made it one.
    """

    def __init__(self) -> None:
        self.hooks: list[Callable[[], bool]] = []
        self._former: ServingWorker | None = None
        self._forked = False
        self._helping = False
        self._begin()
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)
        atexit.register(self._close)

    def _begin(self) -> None:
        self._making = threading.Lock()
        self._known = threading.Event()
        self._worker: ServingWorker | None = None
        self._error: ZmuleError | None = None
        self._started = False

    @property
    def master(self) -> bool:
        """Whether the process has left serving to its children."""
        return self._former is not None and not self._started

    def worker(self) -> ServingWorker:
        """Return the worker that this process is.

        Raises:
            BrokerUnavailable: there is no broker yet. It is waited for, though.
            ZmuleError: the broker does not take this process as a worker, or it cannot be one.
        """
        if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
            raise ZmuleError("threads are replaced here (gevent, eventlet): no signals for this process")
        with self._making:
            if not self._started:
                self._start()
        self._known.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        if self._worker is None:
            endpoint = default_endpoint(os.environ)
            raise no_answer(endpoint, PATIENCE)
        return self._worker

    def _start(self) -> None:
        self._started = True
        threading.Thread(target=self._serve, args=(self._former,), name="zmule-worker", daemon=True).start()

    def _serve(self, former: ServingWorker | None) -> None:
        try:
            worker = ServingWorker()
        except ZmuleError as error:
            self._error = error
            self._known.set()
            print(f"zmule: this process is no worker: {error}", file=sys.stderr)
            return
        if former is not None:
            worker.inherit(former)
        self._worker = worker
        self._known.set()
        worker.serve()

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    # Forks.

    def _before_fork(self) -> None:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        self._helping = self._forked or caller.partition(".")[0] in HELPED
        if self._worker is not None and not self._helping:
            self._former = self._worker
            self._close()
            self._begin()

    def _after_fork(self) -> None:
        former = self._former
        self._begin()
        if self._helping:
            self._former = None
            return
        self._forked = former is not None
        if self._forked:
            self._start()
        for hook in self.hooks:
            self._forked = hook() or self._forked


here = Serving()
"""This process."""
