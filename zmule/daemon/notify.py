"""Tells systemd what zmuled is doing (sd_notify): one datagram to the socket named in NOTIFY_SOCKET.

By hand, because the protocol is a few lines: python-systemd wants the C library and its headers to build,
and the pure sdnotify had its last release in 2017 and blocks when systemd does not read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Sends the state of the service to its manager; without one, or when it cannot, does nothing.

    Args:
        address: the path of a datagram socket, or `@` and an abstract name; empty for none.
    """

    def __init__(self, address: str) -> None:
        self._address = os.fsencode(address)
        if address.startswith("@"):
            self._address = b"\0" + self._address[1:]

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take NOTIFY_SOCKET out of the environment, so that no mule answers in zmuled's name."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def ready(self, status: str) -> None:
        """Say that the start is complete, with one line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode("utf-8", "replace"), self._address)


def _one_line(text: str) -> str:
    """Keep a newline in the text from starting an assignment of its own."""
    return " ".join(text.split())
