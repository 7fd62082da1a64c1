"""zmule with a crowd: a thousand mules and two thousand clients that are connected and do nothing.

`python -m benchmarks.peers.zmule_crowd ADDRESS FIRST MULES CLIENTS` is a part of the crowd. There are some,
since one process may not have that many sockets.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.peers.zmule import receive, send, zmuled
from benchmarks.plan import Plan
from zmule import Client, Mule

__all__ = ["receive", "send", "serve"]
MULES, CLIENTS, PARTS = 1_000, 2_000, 8
FIRST = 1_001
"""The number of the crowd's first mule."""


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    with zmuled(folder) as address, crowd(address, folder):
        yield address


@contextlib.contextmanager
def crowd(address: str, folder: Path) -> Iterator[None]:
    """Have the crowd connected."""
    with contextlib.ExitStack() as stack:
        parts = [
            stack.enter_context(processes.running(*part(address, number), cwd=folder, mercy=1))
            for number in range(PARTS)
        ]
        processes.wait_until(lambda: complete(address), "the crowd is connected", *parts)
        yield


def part(address: str, number: int) -> tuple[object, ...]:
    module = (sys.executable, "-m", "benchmarks.peers.zmule_crowd")
    return (*module, address, FIRST + number * MULES // PARTS, MULES // PARTS, CLIENTS // PARTS)


def complete(address: str) -> bool:
    with Client(address, timeout=processes.PATIENCE) as client:
        status = client.status()
        return len(status["mules"]) >= MULES and status["broker"]["clients"] >= CLIENTS


def attend(address: str, first: int, mules: int, clients: int) -> None:
    """Connect, and stay."""
    present: list[object] = [Mule(number, endpoint=address) for number in range(first, first + mules)]
    for _ in range(clients):
        client = Client(address, timeout=processes.PATIENCE)
        client.ping()
        present.append(client)
    signal.pause()


if __name__ == "__main__":
    attend(sys.argv[1], *map(int, sys.argv[2:]))
