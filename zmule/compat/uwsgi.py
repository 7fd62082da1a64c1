"""The `uwsgi` module as programs know it, on zmule's client and mule.

Types of arguments, results and exceptions are those of uWSGI 2.0.31 wherever it works; docs/migrating.rst
lists where zmule differs on purpose, and what it does not have. Programs set `mule_msg_hook`,
`post_fork_hook` and `atexit` here, so these are not there before.
"""

from __future__ import annotations

import atexit as _atexit
import operator
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from zmule import current, placeholders
from zmule.compat import names, state
from zmule.compat.harakiri import set_user_harakiri as set_user_harakiri
from zmule.compat.process import i_am_the_spooler as i_am_the_spooler
from zmule.compat.process import log as log
from zmule.compat.process import masterpid as masterpid
from zmule.compat.process import mem as mem
from zmule.compat.process import micros as micros
from zmule.compat.process import ready as ready
from zmule.compat.process import setprocname as setprocname
from zmule.compat.translate import as_bytes, check_message, errors, farm_name, seconds_of, signal_number
from zmule.core.frames import DIRECT, FARM, SIGNAL, Body
from zmule.errors import Deadlock, QueueFull
from zmule.mules.engine import Interrupted
from zmule.mules.origins import function_name
from zmule.version import VERSION

version = f"2.0.31+zmule.{VERSION}".encode()
version_info = (2, 0, 31, 0, b"zmule")
hostname = socket.gethostname().encode()
started_on = int(time.time())
has_threads = 1
SPOOL_OK, SPOOL_RETRY, SPOOL_IGNORE = -2, -1, 0

# What uWSGI has here unless it is told otherwise.
cores = 1
buffer_size = 4096
is_a_reload = False
applications = loop = unbit = None
sockets: list[int] = []
magic_table: dict[bytes, bytes] = {}

HOOKS = ("atexit", "mule_msg_hook", "post_fork_hook")
"""What programs set, and is not there before."""

__all__ = [name for name in names.every(*names.UWSGI.values()) if name not in HOOKS]


def __getattr__(name: str) -> Any:
    if name in ("opt", "numproc"):
        status = current.client().status()
        return _options(status) if name == "opt" else max(1, len(status["workers"]))
    if name in HOOKS:
        raise AttributeError(f"nobody has set uwsgi.{name} here")
    return names.absent("uwsgi", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Messages.


def mule_id(*_: Any) -> int:
    """Return the number of this mule, 0 in any other process."""
    mule = current.current_mule()
    return mule.mule_id if mule else 0


def mule_file(*_: Any) -> str | None:
    """Return the program of this mule, None in any other process and in a signal-only mule."""
    mule = current.current_mule()
    return mule.program or None if mule else None


def mule_msg(message: Body, mule: int | str | bytes = 0, /) -> bool:
    """Send a message.

    Args:
        message: text or bytes; received as bytes.
        mule: a mule's number, 0 for the first available one, or the name of a farm.

    Returns:
        True when it is accepted, False when its queue is full.

    Raises:
        ValueError: the mule or farm does not exist or reads no messages, or the message is too large.
        TypeError: the message is neither text nor bytes.
        BrokerUnavailable: the broker does not answer.
    """
    check_message(message)
    if isinstance(mule, (str, bytes)):
        return farm_msg(mule, message)
    if not isinstance(mule, int):
        raise ValueError("invalid mule")
    if mule < 0:
        raise ValueError("invalid mule number")
    return _send(lambda: current.client().mule_msg(message, int(mule)))


def farm_msg(farm: str | bytes, message: Body, /) -> bool:
    """Send a message to the first available mule of a farm. Otherwise as `mule_msg`."""
    check_message(message)
    name = farm_name(farm)
    return _send(lambda: current.client().farm_msg(name, message))


def mule_get_msg(
    signals: object = True, farms: object = True, buffer_size: int = 65536, timeout: float = -1
) -> bytes:
    """Wait for a message to this mule; acknowledge the one that this thread got before.

    Args:
        signals: False or None: signals stay queued. Otherwise their handlers are run meanwhile.
        farms: False or None: messages to the mule's farms will not do.
        buffer_size: taken for compatibility; a message is never cut.
        timeout: seconds to wait; 0 looks only, a negative number waits for ever.

    Returns:
        The message; b"" when the time is over or a handler of an operating system signal has run.

    Raises:
        ValueError: this process is no mule.
    """
    mule = current.current_mule()
    if mule is None:
        raise ValueError("you can receive mule messages only in a mule !!!")
    if not isinstance(timeout, (int, float)) or not isinstance(buffer_size, int):
        raise TypeError("timeout and buffer_size are numbers")
    return _receive(mule, DIRECT | _unless(farms, FARM) | _unless(signals, SIGNAL), timeout) or b""


def farm_get_msg(*_: Any) -> bytes | None:
    """Wait for a message to one of this mule's farms.

    Returns:
        The message; None when a handler of an operating system signal has run.

    Raises:
        ValueError: this process is no mule.
    """
    mule = current.current_mule()
    if mule is None:
        raise ValueError("you can receive farm messages only in a mule !!!")
    return _receive(mule, FARM, -1)


def in_farm(farm: str | bytes | None = None, /) -> bool | None:
    """Return True if this mule is in the farm (without a name: in any), else None."""
    mule = current.current_mule()
    if mule is None or not mule.farms:
        return None
    return True if farm is None or mule.in_farm(farm_name(farm)) else None


def mule_msg_recv_size() -> int:
    """Return how long a message may be, in bytes."""
    return current.client().max_message()


def install_mule_msg_hook(hook: Callable[[bytes], object], /) -> None:
    """Give messages of a signal-only mule to one more function, besides `mule_msg_hook`."""
    if not callable(hook):
        raise TypeError(f"a hook is called, and {type(hook).__name__} cannot be")
    state.message_hooks.append(hook)


# Signals.


def register_signal(number: int, target: str, handler: Callable[[int], object], /) -> None:
    """Have a handler called with the number of the signal when that is raised.

    Raises:
        ValueError: there is no such number or target, or the signal is registered for another target.
        TypeError: an argument is of the wrong type.
    """
    number = signal_number(number)
    if number in state.named_signals:
        raise ValueError(f"signal {number} belongs to a decorator that was given no number: take another")
    if not isinstance(target, str):
        raise TypeError(f"a target is str, not {type(target).__name__}")
    with errors():
        runner = current.signal_runner()
        runner.register_from(runner.loading(), function_name(handler), number, target, handler)


def signal(number: int, /) -> None:
    """Raise a signal.

    Raises:
        ValueError: there is no such number.
        QueueFull: it waits too many times already.
        BrokerUnavailable: the broker does not answer.
    """
    with errors():
        current.client().signal(signal_number(number))


def signal_wait(number: int | None = None, /) -> bytes:
    """Wait for a signal (this one, if one is named), run its handler if there is one; return b""."""
    with errors():
        current.signal_runner().signal_wait(None if number is None else signal_number(number))
    return b""


def signal_received() -> int:
    """Return the signal that this thread (in a worker, this process) has handled last, 0 before the first."""
    return current.signal_runner().signal_received()


def signal_registered(number: int, /) -> bool | None:
    """Return True if any process handles the signal, else None.

    While a module is loaded, None also if only other processes that load it do: this one is about to.
    """
    with errors():
        runner = current.signal_runner()
        return runner.ask("signal_registered", signal_number(number), runner.loading()) or None


def add_timer(number: int, seconds: float, /) -> None:
    """Raise the signal every so many seconds, from now; never if they are 0 or fewer.

    Raises:
        ValueError: the number or the seconds are out of range.
        TypeError: an argument is no number.
    """
    number, period = signal_number(number), seconds_of(seconds)
    if period > 0:
        with errors():
            current.signal_runner().add_timer(number, period)


def add_ms_timer(number: int, milliseconds: float, /) -> None:
    """Raise the signal every so many milliseconds. Otherwise as `add_timer`."""
    add_timer(number, seconds_of(milliseconds) / 1000)


def add_rb_timer(number: int, seconds: float, iterations: int = 0, /) -> None:
    """Raise the signal so many times, every so many seconds; 0 or fewer times: for ever. See `add_timer`.

    0 seconds or fewer: at once, and then every second.
    """
    times = max(0, operator.index(iterations))
    with errors():
        current.signal_runner().add_rb_timer(signal_number(number), max(0.0, seconds_of(seconds)), times)


def add_cron(number: int, minute: int, hour: int, day: int, month: int, weekday: int, /) -> bool:
    """Raise the signal at times of the broker's clock: -1 is any, -n every value that n divides.

    Returns:
        True.

    Raises:
        ValueError: the number or a field is out of range.
        TypeError: an argument is no whole number.
    """
    fields = [operator.index(field) for field in (minute, hour, day, month, weekday)]
    with errors():
        current.signal_runner().add_cron(signal_number(number), *fields)
    return True


def add_file_monitor(number: int, path: str, /) -> None:
    """Raise the signal whenever something at the path changes, be it there already or later.

    Raises:
        ValueError: the number is out of range, or the path cannot be watched.
        TypeError: the path is no text.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is str, not {type(path).__name__}")
    with errors():
        current.signal_runner().add_file_monitor(signal_number(number), os.path.abspath(path))  # noqa: PTH100


# Locks.


def lock(number: int = 0, /) -> None:
    """Wait for a lock, and hold it.

    Raises:
        ValueError: there is no lock of that number.
        RuntimeError: this thread holds it already, and would wait for itself.
    """
    with errors():
        try:
            current.client().acquire_lock(operator.index(number), None)
        except Deadlock:
            mule = current.current_mule()
            if mule is not None:
                mule.stay_if_told()  # as in uWSGI: the process ends meanwhile
            raise


def unlock(number: int = 0, /) -> None:
    """Let go of a lock.

    Raises:
        ValueError: there is no lock of that number.
        RuntimeError: this thread does not hold it.
    """
    with errors():
        current.client().release_lock(operator.index(number))


def is_locked(number: int = 0, /) -> bool:
    """Return whether any process holds the lock."""
    with errors():
        return current.client().is_locked(operator.index(number))


# The process, and all of them.


def worker_id(*_: Any) -> int:
    """Return the number of this worker: 0 in a mule, and in a server's master."""
    return current.worker_id()


def reload() -> bool:
    """Start all mules of zmuled anew, each when it has finished its work; return True."""
    current.signal_runner().ask("reload")
    return True


def stop() -> bool:
    """Stop zmuled and its mules, each when it has finished its work; return True."""
    current.signal_runner().ask("stop")
    return True


# Inside.


def _receive(mule: Any, sources: int, timeout: float) -> bytes | None:
    try:
        message: bytes | None = mule.receive(
            sources,
            None if timeout < 0 else timeout,
            lambda arrival: as_bytes(arrival[1]),
            interruptible=True,
        )
    except Interrupted:
        return None
    return message


def _send(send: Callable[[], bool]) -> bool:
    try:
        with errors():
            return send()
    except QueueFull:
        return False


def _unless(switch: object, source: int) -> int:
    """Return the source unless it is switched off, which uWSGI takes only these two for."""
    return 0 if switch is False or switch is None else source


def _options(status: dict[str, Any]) -> dict[str, Any]:
    """Return uWSGI's options for the mules and farms there are: bytes or True, a list of several."""
    given: dict[str, list[Any]] = {
        "mule": [mule["program"].encode() if mule["program"] else True for mule in status["mules"]],
        **placeholders.unpack(os.environ),
        "farm": [f"{name}:{','.join(map(str, mules))}".encode() for name, mules in status["farms"].items()],
    }
    options = {name: values if len(values) > 1 else values[0] for name, values in given.items() if values}
    return {"master": True, **options}


def _call_atexit() -> None:
    hook = globals().get("atexit")
    if callable(hook):
        hook()
        current.close_client()


_atexit.register(_call_atexit)
