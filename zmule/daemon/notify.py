"""Tells systemd what zmuled is doing (sd_notify): one datagram to the socket named in NOTIFY_SOCKET.

With `WatchdogSec=` in the unit, it is also told that zmuled is alive. That is for the daemon's loop to say,
at every `next_deadline`: a thread or a process of its own would go on saying it when the loop stands still.

By hand, because the protocol is a few lines: python-systemd wants the C library and its headers to build,
and the pure sdnotify had its last release in 2017 and blocks when systemd does not read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from math import inf

OURS_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What a service manager tells its service, and not the processes that this one starts."""


class Notifier:
    """Sends the state of the service to its manager; without one, or when it cannot, does nothing.

    Args:
        address: the path of a datagram socket, or `@` and an abstract name; empty for none.
        watchdog: after how many seconds without a sign of life the manager kills the service; 0 for never.
    """

    def __init__(self, address: str, watchdog: float = 0.0) -> None:
        self._address = os.fsencode(address)
        if address.startswith("@"):
            self._address = b"\0" + self._address[1:]
        self._pause = watchdog / 2
        self._due = 0.0 if address and watchdog else inf

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take what the manager has said out of the environment, so that no mule answers in zmuled's name."""
        said = {name: environ.pop(name, "") for name in OURS_ALONE}
        address, micros = said["NOTIFY_SOCKET"], said["WATCHDOG_USEC"]
        meant = said["WATCHDOG_PID"] in ("", str(os.getpid())) and micros.isascii() and micros.isdigit()
        return cls(address, int(micros) / 1e6 if meant else 0.0)

    def ready(self, status: str) -> None:
        """Say that the start is complete, with one line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING=1")

    def tick(self, now: float) -> None:
        """Say that the daemon is alive, if that is due. `now` is in seconds on the monotonic clock."""
        if now >= self._due:
            self._due = now + self._pause
            self._send("WATCHDOG=1")

    def next_deadline(self) -> float:
        """Return when `tick` has something to do, if ever."""
        return self._due

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode("utf-8", "replace"), self._address)


def _one_line(text: str) -> str:
    """Keep a newline in the text from starting an assignment of its own."""
    return " ".join(text.split())
