"""The functions of the package: what a program does with the process's own client and mule.

What concerns signals is done by the mule that the process is. A process that is none becomes a worker by it,
and runs handlers in a thread of its own: see `zmule.mules.serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmule.clients.lock import Lock
from zmule.core.frames import Body, Headers
from zmule.current import client, current_mule, mule, signal_runner, worker_id
from zmule.mules.signals import Handler

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "add_cron",
    "add_cron_text",
    "add_file_monitor",
    "add_rb_timer",
    "add_timer",
    "farm_get_msg",
    "farm_msg",
    "get_msg",
    "in_farm",
    "is_locked",
    "lock",
    "mule_id",
    "mule_msg",
    "register_signal",
    "remove_source",
    "signal",
    "signal_received",
    "signal_registered",
    "signal_wait",
    "unregister_signal",
    "worker_id",
]


# Messages.


def mule_msg(
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
    """Send a message by the process's own client; see `Client.mule_msg`."""
    return client().mule_msg(
        message, mule, wait=wait, headers=headers, timeout=timeout, delay=delay, at=at, ttl=ttl
    )


def farm_msg(
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
    """Send a message by the process's own client; see `Client.farm_msg`."""
    return client().farm_msg(
        farm, message, wait=wait, headers=headers, timeout=timeout, delay=delay, at=at, ttl=ttl
    )


def get_msg(timeout: float | None = None, *, farms: bool = True, signals: bool = True) -> Body | None:
    """Wait for a message to the mule that this process is; see `Mule.get_msg`."""
    return mule().get_msg(timeout, farms=farms, signals=signals)


def farm_get_msg(timeout: float | None = None) -> Body | None:
    """Wait for a message to a farm of the mule that this process is; see `Mule.farm_get_msg`."""
    return mule().farm_get_msg(timeout)


def mule_id() -> int:
    """Return the number of the mule that this process is, 0 if it is none."""
    own = current_mule()
    return own.mule_id if own else 0


def in_farm(name: str) -> bool:
    """Return whether this process is a mule in that farm; see `Mule.in_farm`."""
    own = current_mule()
    return own is not None and own.in_farm(name)


# Signals.


def signal(number: int, *, timeout: float | None = None) -> None:
    """Raise a signal by the process's own client; see `Client.signal`."""
    client().signal(number, timeout=timeout)


def register_signal(number: int, target: str, handler: Handler) -> None:
    """Have the handler called here when the signal is raised; see `Mule.register_signal`."""
    signal_runner().register_signal(number, target, handler)


def unregister_signal(number: int) -> None:
    """Handle the signal here no more; see `Mule.unregister_signal`."""
    signal_runner().unregister_signal(number)


def signal_registered(number: int) -> bool:
    """Return whether any process handles the signal; see `Mule.signal_registered`."""
    return signal_runner().signal_registered(number)


def signal_wait(number: int | None = None, timeout: float | None = None) -> int | None:
    """Wait for a signal, and run its handler if there is one; see `Mule.signal_wait`."""
    return signal_runner().signal_wait(number, timeout)


def signal_received() -> int:
    """Return the signal that was handled last, by this thread of a mule or by this worker; 0 if none."""
    return signal_runner().signal_received()


def add_timer(number: int, seconds: float) -> None:
    """Raise the signal every so many seconds; see `Mule.add_timer`."""
    signal_runner().add_timer(number, seconds)


def add_rb_timer(number: int, seconds: float, iterations: int = 0) -> None:
    """Raise the signal so many times, every so many seconds; see `Mule.add_rb_timer`."""
    signal_runner().add_rb_timer(number, seconds, iterations)


def add_cron(number: int, minute: int, hour: int, day: int, month: int, weekday: int) -> None:
    """Raise the signal at times of the broker's clock; see `Mule.add_cron`."""
    signal_runner().add_cron(number, minute, hour, day, month, weekday)


def add_cron_text(number: int, text: str, zone: str = "") -> None:
    """Raise the signal at the times of a cron expression; see `Mule.add_cron_text`."""
    signal_runner().add_cron_text(number, text, zone)


def add_file_monitor(number: int, path: str) -> None:
    """Raise the signal whenever something at the path changes; see `Mule.add_file_monitor`."""
    signal_runner().add_file_monitor(number, path)


def remove_source(kind: str, number: int) -> int:
    """Remove what raises a signal, whoever asked for it; see `Mule.remove_source`."""
    return signal_runner().remove_source(kind, number)


# Locks.


def lock(name: int | str = 0, *, timeout: float | None = None, blocking: bool = True) -> Lock:
    """Return a lock, to be used by `with`; see `Client.lock`."""
    return client().lock(name, timeout=timeout, blocking=blocking)


def is_locked(name: int | str = 0) -> bool:
    """Return whether anybody holds the lock; see `Client.is_locked`."""
    return client().is_locked(name)
