"""What the `uwsgi` module does for a process without asking the broker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def masterpid() -> int:
    """Return the process that has started this one: zmuled for a mule, the server's master for a worker."""
    return os.getppid()


def i_am_the_spooler() -> None:
    """Return None: no process is a spooler."""


def ready() -> bool:
    """Return True: whoever can ask has been started."""
    return True


def log(line: str | bytes, /) -> bool:
    """Write a line to the log; return True."""
    text = line.decode(errors="replace") if isinstance(line, bytes) else str(line)
    print(text, file=sys.stderr, flush=True)
    return True


def setprocname(name: str, /) -> None:
    """Name this process, in 15 bytes at most, for `ps -e` and `top`."""
    if not isinstance(name, str):
        raise TypeError(f"a name is str, not {type(name).__name__}")
    Path("/proc/self/comm").write_text(name)


def mem() -> tuple[int, int]:
    """Return how much memory this process uses, in bytes: resident, and in all."""
    total, resident, *_ = Path("/proc/self/statm").read_text().split()
    page = os.sysconf("SC_PAGE_SIZE")
    return int(resident) * page, int(total) * page


def micros() -> int:
    """Return the time, in microseconds since 1970."""
    return time.time_ns() // 1000
