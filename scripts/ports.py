"""Ports for servers that are started later, and perhaps more than once: no outgoing connection gets them."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LEAST = 10_000
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""From where on the kernel takes ports for connections that do not ask for one."""


def free_ports(count: int = 2) -> int:
    """Return a port that is free together with those that follow it, `count` in all."""
    end = int(OUTGOING.read_text().split()[0])
    while True:
        port = random.randrange(LEAST, max(end, 2 * LEAST) - count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as servers:
            for each in range(port, port + count):
                servers.enter_context(socket.create_server(("127.0.0.1", each)))
            return port
