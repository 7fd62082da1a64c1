"""What processes take of the machine, as the kernel counts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def memory(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def seconds(pid: int) -> float:
    """Return the processor's time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def share(pids: list[int], span: float) -> float:
    """Watch processes for some seconds; return what part of one core they take, in %."""
    before = sum(map(seconds, pids))
    time.sleep(span)
    return 100 * (sum(map(seconds, pids)) - before) / span


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *descendants(child))]
