"""A mule as its program sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Body, Headers
from zmule.core.inbox import Arrival, Delivery
from zmule.core.questions import expect
from zmule.core.queues import check_signal
from zmule.mules.engine import BODY, Engine
from zmule.mules.origins import loading
from zmule.mules.signals import Handler


class Message:
    """A message with its circumstances, as `Mule.message` gives it.

    Attributes:
        body: text or bytes, as it was sent.
        attempt: 1 at the first delivery, then 2, 3, …
        queue: where it came from: `any`, `mule:N` or `farm:NAME`.
        headers: what its sender let travel along.
    """

    __slots__ = ("attempt", "body", "headers", "queue")

    def __init__(self, arrival: Arrival) -> None:
        delivery = Delivery(*arrival)
        self.body: Body = delivery.body
        self.attempt = delivery.attempt
        self.queue = delivery.queue
        self.headers: Headers = delivery.headers or {}


def as_delivery(arrival: Arrival) -> Delivery:
    """Return a message as it came, with names."""
    return Delivery(*arrival)


EVERY_MESSAGE = DIRECT | FARM | SIGNAL
"""What a get takes unless told otherwise."""


class SignalRunner(Engine):
    """What mules and workers have in common for their programs: signals, and what raises them."""

    def register_signal(self, number: int, target: str, handler: Handler) -> None:
        """Have the handler called when the signal is raised. Stands for `uwsgi.register_signal`.

        Doing the same again is fine; so five mules may load one module.

        Args:
            number: 0 to 255.
            target: who runs it: `mule` (the first available), `mules` (all), `mule2`, `farm_NAME`, `farm1`;
                `worker`, `workers`, `worker2` likewise.
            handler: called in a thread that is in a get or in `signal_wait`, or in the main thread of a
                signal-only mule.

        Raises:
            TypeError: the number is no whole number, or the handler cannot be called.
            SignalConflict: the signal is registered with another target.
            UnknownTarget, UnknownMule, UnknownFarm: there is no such target.
        """
        self.register_from("", "", number, target, handler)

    def register_from(self, place: str, function: str, number: int, target: str, handler: Handler) -> None:
        """Register a signal in loading a place, by a function of that name; see `core/free.py`."""
        check_signal(number)
        if not callable(handler):
            raise TypeError(f"a handler is called, and {type(handler).__name__} cannot be")
        before = self.handlers.signals.get(number)
        self.handlers.signals[number] = handler
        try:
            self.want("register_signal", number, target, place, function)
        except BaseException:
            if before is None:
                del self.handlers.signals[number]
            else:
                self.handlers.signals[number] = before
            raise

    def unregister_signal(self, number: int) -> None:
        """Handle the signal no more. uWSGI has nothing like it."""
        self.unwant("register_signal", check_signal(number))
        self.ask("unregister_signal", number)
        self.handlers.signals.pop(number, None)

    def name_signal(self, name: str) -> int:
        """Return the number of the signal that has this name: a free one if the name is new.

        So processes that load the same module agree on the numbers of its signals. It stands for what
        uWSGI's decorators do when no signal is named: there the module is loaded once, before the fork.
        """
        number = expect(int, self.ask("name_signal", name, -1))
        self.want("name_signal", name, number)
        return number

    def loading(self) -> str:
        """Return the name of what this thread is loading, "" if it is not loading anything."""
        return loading(self.has_waited())

    def signal_registered(self, number: int) -> bool:
        """Return whether anybody handles the signal. Stands for `uwsgi.signal_registered`."""
        return bool(self.ask("signal_registered", check_signal(number)))

    def signal_wait(self, number: int | None = None, timeout: float | None = None) -> int | None:
        """Wait for a signal, run its handler if there is one. Stands for `uwsgi.signal_wait`.

        Args:
            number: the signal to wait for; others are handled meanwhile. None: any.
            timeout: seconds to wait, None for ever.

        Returns:
            The signal's number, None when the time is over.
        """
        if number is not None:
            check_signal(number)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            delivery = self.receive(SIGNAL | STRAY, left, as_delivery, handle=0)
            if delivery is None:
                return None
            received = self.run(delivery)
            if received is not None and number in (None, received):
                return received

    def signal_received(self) -> int:
        """Return the signal that this thread has handled last, 0 if none.

        Stands for `uwsgi.signal_received`.
        """
        return self.handlers.received()

    def add_timer(self, number: int, seconds: float) -> None:
        """Raise the signal every so many seconds, from now. Stands for `uwsgi.add_timer`.

        The same again is the same timer. It lives in the broker, for as long as somebody wants it.

        Raises:
            WrongValue: the number or the seconds are out of range.
        """
        self.want("add_timer", check_signal(number), float(seconds))

    def add_rb_timer(self, number: int, seconds: float, iterations: int = 0) -> None:
        """Raise the signal so many times, every so many seconds; 0 times: for ever, 0 seconds: from now on.

        Stands for `uwsgi.add_rb_timer`. One that has run out is not started again by a process that asks for
        it as it is loaded; later on, it is.
        """
        wish = check_signal(number), float(seconds), iterations
        self.ask("add_rb_timer", *wish, not self.loading())
        self.note("add_rb_timer", *wish)

    def add_cron(self, number: int, minute: int, hour: int, day: int, month: int, weekday: int) -> None:
        """Raise the signal at these times of the broker's clock. Stands for `uwsgi.add_cron`.

        Args:
            number: the signal.
            minute, hour, day, month, weekday: -1 is any, -n every value that n divides; if day and weekday
                are both given, either will do; 0 and 7 are Sunday.
        """
        self.want("add_cron", check_signal(number), minute, hour, day, month, weekday)

    def add_cron_text(self, number: int, text: str, zone: str = "") -> None:
        """Raise the signal at the times of a cron expression.

        Args:
            number: the signal.
            text: five fields, such as `*/5 8-18 * * mon-fri`.
            zone: a time zone such as `Europe/Rome`; default the broker's own.
        """
        self.want("add_cron_text", check_signal(number), text, zone)

    def add_file_monitor(self, number: int, path: str) -> None:
        """Raise the signal whenever something at the path changes. Stands for `uwsgi.add_file_monitor`.

        Args:
            number: the signal.
            path: an absolute path on the broker's host, of a file or folder, which need not be there yet.
        """
        self.want("add_file_monitor", check_signal(number), path)

    def remove_source(self, kind: str, number: int) -> int:
        """Remove what raises a signal, whoever asked for it; return how many there were.

        Args:
            kind: `timer`, `rb_timer`, `cron` or `filemon`.
            number: the signal.
        """
        for what in _WANTS.get(kind, ()):
            self.unwant(what, check_signal(number))
        return expect(int, self.ask("remove_source", kind, number))

    def register_function(self, name: str, run: Callable[[bytes], object]) -> None:
        """Run calls that are sent to a function of that name: what `@mulefunc` is made of."""
        self.handlers.calls[name] = run
        self.want("register_function", name)


_WANTS = {
    "timer": ("add_timer",),
    "rb_timer": ("add_rb_timer",),
    "cron": ("add_cron", "add_cron_text"),
    "filemon": ("add_file_monitor",),
}


class Mule(SignalRunner):
    """This process as a mule of a running broker.

    Registers at once, and again after every loss of the connection, with pauses that grow. Used by any
    number of threads. In a forked child it is unusable: the mule is the parent.

    Args:
        number: the mule's number; 0 takes a free one.
        farms: names of the farms to join.
        endpoint: the broker's endpoint, default as for `Client`.
        program: what `zmule status` shows as its program.
        timeout: seconds to wait for the first registration; None waits for ever.

    Raises:
        NumberInUse: another process is that mule.
        NotPermitted: the number belongs to a mule that `zmuled` starts itself.
        BrokerUnavailable: no broker has answered in time.
    """

    @property
    def mule_id(self) -> int:
        """The mule's number. Stands for `uwsgi.mule_id`."""
        return self._inbox.number

    @property
    def program(self) -> str:
        """What the mule runs, "" if it is signal-only."""
        return self._inbox.program

    @property
    def farms(self) -> tuple[str, ...]:
        """The farms that the mule is a member of, in the order in which they are served."""
        return self._inbox.farms

    def in_farm(self, name: str) -> bool:
        """Return whether the mule is a member of the farm. Stands for `uwsgi.in_farm`."""
        return name in self._inbox.farms

    def get_msg(
        self, timeout: float | None = None, *, farms: bool = True, signals: bool = True
    ) -> Body | None:
        """Wait for a message; acknowledge the one that this thread got before.

        Stands for `uwsgi.mule_get_msg`.

        Args:
            timeout: seconds to wait, 0 to look only, None for ever.
            farms: whether messages to the mule's farms will do, too.
            signals: whether handlers of signals, and calls, are run meanwhile.

        Returns:
            The message, text or bytes as it was sent; None when the time is over.

        Raises:
            MuleStopped: the mule is to end; a `SystemExit`.
            ZmuleError: the mule is closed, or the broker does not take it any longer.
        """
        sources = EVERY_MESSAGE if farms and signals else _sources(farms, signals)
        return self.receive(sources, timeout, BODY)

    def farm_get_msg(self, timeout: float | None = None) -> Body | None:
        """Wait for a message to one of the mule's farms. Stands for `uwsgi.farm_get_msg`.

        Otherwise as `get_msg`.
        """
        return self.receive(FARM, timeout, BODY)

    @contextlib.contextmanager
    def message(self, timeout: float | None = None, *, farms: bool = True) -> Iterator[Message | None]:
        """Work on one message: acknowledged when the block ends, delivered again when it raises.

        Args, and what it gives besides a `Message`: as `get_msg`.
        """
        hand = self._hands.mine()
        last = hand.arrival
        try:
            yield self.receive(_sources(farms, signals=True), timeout, Message)
        except BaseException:
            if hand.arrival is not last:
                self.nack()
            raise
        self.ack()

    def take_over(self) -> None:
        """Let the code of a signal-only mule run it from here on, as a program would: messages are kept."""
        self.want("read_messages")
        self.settle()


class Worker(SignalRunner):
    """This process as a worker: a process of some web server, that signals may be raised for.

    Args: as `Mule`, without farms; a worker reads no messages.
    """

    def __init__(self, number: int = 0, *, endpoint: str | None = None, timeout: float | None = 5.0) -> None:
        super().__init__(number, endpoint=endpoint, timeout=timeout, role="worker")

    @property
    def worker_id(self) -> int:
        """The worker's number. Stands for `uwsgi.worker_id`."""
        return self._inbox.number

    def inherit(self, former: Worker) -> None:
        """Handle and want what the worker did that a parent process was before it forked."""
        self.handlers = former.handlers
        self._receiver.do(lambda: self._inbox.inherit(former._inbox))


def _sources(farms: bool, signals: bool) -> int:
    return DIRECT | (FARM if farms else 0) | (SIGNAL if signals else 0)
