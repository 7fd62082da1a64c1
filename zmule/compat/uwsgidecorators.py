"""The `uwsgidecorators` module as programs know it.

A decorator that is given no signal takes one by the name of its function, so that all processes that load
the same module agree on its number; see `SignalRunner.name_signal`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from zmule import current
from zmule.compat import harakiri as _harakiri
from zmule.compat import names, state, uwsgi
from zmule.compat.translate import errors, farm_name
from zmule.core.queues import ANY, farm_queue, is_function, mule_queue
from zmule.mules.origins import function_name

Function = TypeVar("Function", bound=Callable[..., Any])

mule_functions: dict[str, Callable[..., object]] = {}
postfork_chain: list[Callable[[], object]] = []

_repeated: Counter[str] = Counter()


__all__ = ["sys", "uwsgi", *names.every(names.DECORATORS)]


def __getattr__(name: str) -> Any:
    return names.absent("uwsgidecorators", name)


# Signals.


def get_free_signal() -> int:
    """Return the lowest signal that is free, the same in all processes that load the calling code."""
    for number in range(256):
        if not uwsgi.signal_registered(number):
            return number
    raise Exception("No free uwsgi signal available")


def signal(num: int, *, target: str = "") -> Callable[[Function], Function]:
    """Have the function called when the signal is raised."""

    def decorate(f: Function) -> Function:
        uwsgi.register_signal(num, target, f)
        return f

    return decorate


def timer(secs: float, *, target: str = "", signum: int | None = None) -> Callable[[Function], Function]:
    """Have the function called every so many seconds."""
    return _called_by(uwsgi.add_timer, (secs,), target, signum)


def mstimer(msecs: float, *, target: str = "", signum: int | None = None) -> Callable[[Function], Function]:
    """Have the function called every so many milliseconds."""
    return _called_by(uwsgi.add_ms_timer, (msecs,), target, signum)


def rbtimer(
    secs: float, *, iterations: int = 0, target: str = "", signum: int | None = None
) -> Callable[[Function], Function]:
    """Have the function called so many times, every so many seconds; 0 times: for ever."""
    return _called_by(uwsgi.add_rb_timer, (secs, iterations), target, signum)


def cron(
    minute: int,
    hour: int,
    day: int,
    month: int,
    dayweek: int,
    *,
    target: str = "",
    signum: int | None = None,
) -> Callable[[Function], Function]:
    """Have the function called at times of the broker's clock; see `uwsgi.add_cron`."""
    return _called_by(uwsgi.add_cron, (minute, hour, day, month, dayweek), target, signum)


def filemon(fsobj: str, *, target: str = "", signum: int | None = None) -> Callable[[Function], Function]:
    """Have the function called whenever something at the path changes."""
    return _called_by(uwsgi.add_file_monitor, (fsobj,), target, signum)


def _called_by(
    add: Callable[..., object], spec: tuple[Any, ...], target: str, signum: int | None
) -> Callable[[Function], Function]:
    def decorate(f: Function) -> Function:
        number = (
            _name_signal(f"{function_name(f)} {add.__name__}{spec} {target}") if signum is None else signum
        )
        uwsgi.register_signal(number, target, f)
        if signum is None:
            state.named_signals.add(number)
        add(number, *spec)
        return f

    return decorate


def _name_signal(name: str) -> int:
    """Return the signal of that name; what a process names twice is two signals."""
    _repeated[name] += 1
    with errors():
        return current.signal_runner().name_signal(f"{name} {_repeated[name]}")


# Signal-only mules that are taken over, and what else runs after a fork.


def postfork_chain_hook() -> None:
    """Call what is to run after a fork, in the order in which it was decorated."""
    for f in postfork_chain:
        f()


uwsgi.post_fork_hook = postfork_chain_hook


class postfork:
    """Have the function called in signal-only mules, and in workers after the fork; `@postfork(2)`: in one.

    The name of the function becomes an object of this class, which can be called.
    """

    def __init__(self, f: Callable[[], object] | int) -> None:
        self.f: Callable[[], object] | None = None if isinstance(f, int) else f
        self.wid = f if isinstance(f, int) else 0
        postfork_chain.append(self)

    def __call__(self, *args: Any) -> Any:
        if self.f is None:
            (self.f,) = args
        elif self.wid <= 0 or self.wid == uwsgi.worker_id():
            return self.f()
        return None


def mule(num: int) -> Callable[[Callable[[], object]], None]:
    """Have the function run as the program of a signal-only mule, which serves signals when it has ended."""
    return _takes_over(lambda: uwsgi.mule_id() == num, lambda f: f())


def muleloop(num: int) -> Callable[[Callable[[], object]], None]:
    """Have the function run again and again as the program of a signal-only mule."""

    def run(f: Callable[[], object]) -> None:
        while True:
            f()

    return _takes_over(lambda: uwsgi.mule_id() == num, run)


def mulemsg(num: int) -> Callable[[Callable[[bytes], object]], None]:
    """Have the function called with each message of a signal-only mule."""
    return _takes_over(lambda: uwsgi.mule_id() == num, functools.partial(_feed, uwsgi.mule_get_msg))


def farm(name: str | bytes) -> Callable[[Callable[[bytes], object]], None]:
    """Have the function called with each message of a farm, in the signal-only mules of the farm."""
    return _takes_over(lambda: bool(uwsgi.in_farm(name)), functools.partial(_feed, uwsgi.farm_get_msg))


def _feed(get: Callable[[], bytes | None], f: Callable[[bytes], object]) -> None:
    while True:
        message = get()
        if message:
            f(message)


def _takes_over(here: Callable[[], bool], run: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return a decorator that has a function run in some mules, which then serve no signals by themselves."""

    def decorate(f: Any) -> None:
        def take_over() -> None:
            if here():
                current.mule().take_over()
                run(f)

        postfork_chain.append(take_over)

    return decorate


class mulefunc:
    """Have calls of the function run in a mule that has it: `@mulefunc`, `@mulefunc(3)`, `@mulefunc('farm')`.

    The name of the function becomes an object of this class; to call it sends the call, and returns None.

    Raises, when it is called:
        TypeError: an argument is of a type that cannot travel; see `calls.py`.
        ValueError: there is no such mule or farm, or the arguments are too long.
        QueueFull: too many calls of the function wait already.
    """

    def __init__(self, f: Callable[..., object] | int | str | bytes) -> None:
        self.fname: str | None = None
        self.mule = 0 if callable(f) else f
        if callable(f):
            self._take(f)

    def __call__(self, *args: Any, **kwargs: Any) -> mulefunc | None:
        if self.fname is None:
            self._take(*args)
            return self
        from zmule.compat import calls

        client = current.client()
        with errors():
            client.call(self.fname, self._readers(), calls.dump(args, kwargs, client.endpoint))
        return None

    def _take(self, f: Callable[..., object]) -> None:
        name = f.__name__
        if not is_function(name):
            raise ValueError(f"calls find a function by its name, and {name!r} is none")
        self.fname = name
        mule_functions[name] = f
        mule = current.current_mule()
        if mule is not None:
            with errors():
                mule.register_function(name, functools.partial(_run, name))

    def _readers(self) -> str:
        if isinstance(self.mule, int):
            return mule_queue(self.mule) if self.mule else ANY
        return farm_queue(farm_name(self.mule))


def mule_msg_dispatcher(message: bytes) -> Any:
    """Call what a message asks for that is a pickled call, as uWSGI's mules get them; return its result.

    Calls of zmule's `@mulefunc` are no messages, and need no dispatcher.

    Raises:
        UnpicklingError: the message is none, or must not be unpickled here: see `[mulefunc] serializer`.
        KeyError: it is a call of a function that is not here.
    """
    import pickle

    from zmule.compat import calls

    if not calls.unsafe(current.client().endpoint):
        raise pickle.UnpicklingError('not a call, or one as pickle: [mulefunc] serializer is not "pickle"')
    call = pickle.loads(message)
    if call["service"] == "uwsgi_mulefunc":
        return mule_functions[call["func"]](*call["args"], **call["kwargs"])
    return None


def _run(name: str, arguments: bytes) -> None:
    from zmule.compat import calls

    args, kwargs = calls.load(arguments, current.mule().endpoint)
    mule_functions[name](*args, **kwargs)


# The rest.


def lock(f: Function) -> Function:
    """Have the function run by one thread of all processes at a time: it holds lock 0."""

    @functools.wraps(f)
    def locked(*args: Any, **kwargs: Any) -> Any:
        uwsgi.lock()
        try:
            return f(*args, **kwargs)
        finally:
            uwsgi.unlock()

    return locked  # type: ignore[return-value]  # it is called the same way


def thread(f: Function) -> Callable[..., Function]:
    """Have each call of the function run in a thread of its own, which does not outlive the process."""

    @functools.wraps(f)
    def start(*args: Any) -> Function:
        threading.Thread(target=f, args=args, daemon=True).start()
        return f

    return start


def harakiri(seconds: float) -> Callable[[Function], Function]:
    """Have the process killed when a call of the function takes longer."""

    def decorate(f: Function) -> Function:
        @functools.wraps(f)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with _harakiri.here.call(seconds):
                return f(*args, **kwargs)

        return watched  # type: ignore[return-value]  # it is called the same way

    return decorate
