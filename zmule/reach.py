"""Why nobody answers at an endpoint: looked into when an answer has failed to come, not before.

Not even imported before: a socket of Python's own costs a command that lives for 60 ms a sixth of that.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from zmule.endpoints import is_local, split_tcp
from zmule.errors import BrokerUnavailable, NotPermitted, ZmuleError

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)
FORBIDDEN = (errno.EACCES, errno.EPERM)
TCP_SECONDS = 1.0


def trouble(endpoint: str) -> ZmuleError | None:
    """Return why no broker can answer there at present; None if somebody listens, or nobody can tell."""
    return _look(endpoint)[0]


def no_answer(endpoint: str, seconds: float, what: str = "") -> ZmuleError:
    """Return the error for an answer that has not come in so many seconds; `what`: what is open."""
    error, pid = _look(endpoint)
    if error is None:
        who = f"process {pid}, which listens at {endpoint}," if pid else f"whoever listens at {endpoint}"
        error = BrokerUnavailable(f"{who} has not answered for {seconds:g} s")
    return type(error)(f"{error}: {what}" if what else str(error))


def _look(endpoint: str) -> tuple[ZmuleError | None, int]:
    """Return what is wrong there, if anything is seen, and who listens, if that can be told."""
    if endpoint.startswith("ipc://"):
        return _look_at_path(endpoint, endpoint.removeprefix("ipc://"))
    return _look_at_port(endpoint), 0


def _look_at_path(endpoint: str, path: str) -> tuple[ZmuleError | None, int]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fsencode(path))
        if code in ABSENT:
            return _absent(endpoint), 0
        if code in FORBIDDEN:
            text = f"{endpoint} is not open to this user: see --socket-mode and --socket-group of zmuled"
            return NotPermitted(text), 0
        return None, _peer(probe) if code == 0 else 0


def _peer(probe: socket.socket) -> int:
    """Return the process that listens at the other end."""
    size = struct.calcsize("3i")
    pid: int = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
    return pid


def _look_at_port(endpoint: str) -> ZmuleError | None:
    if not is_local(endpoint):
        return None  # a firewall between may answer in its stead, or not at all
    host, port = split_tcp(endpoint)
    try:
        socket.create_connection((host.strip("[]"), int(port)), TCP_SECONDS).close()
    except ConnectionRefusedError:
        return _absent(endpoint)
    except (OSError, ValueError):
        return None
    return None


def _absent(endpoint: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"no zmuled at {endpoint}: is zmuled running?")
