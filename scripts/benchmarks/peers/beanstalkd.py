"""beanstalkd: put, reserve and delete, each a round trip; durable with its binlog, synced at every write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_ports

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    processes.module("greenstalk")
    port = free_ports(1)
    kept = ("-b", folder, "-f", "0") if plan.durable else ()
    command = (processes.binary("beanstalkd"), "-l", "127.0.0.1", "-p", str(port), *kept)
    with processes.running(*command, cwd=folder) as process:
        processes.wait_until(lambda: processes.answers(port), "beanstalkd answers", process)
        yield str(port)


def connected(role: Role) -> Any:
    import greenstalk

    return greenstalk.Client(("127.0.0.1", int(role.address)), encoding=None)


def send(role: Role, bodies: Iterator[bytes]) -> None:
    client = connected(role)
    for body in bodies:
        client.put(body)


def receive(role: Role, handled: Handled) -> None:
    client = connected(role)
    handled.ready()
    while True:
        job = client.reserve()
        handled(job.body)
        client.delete(job)
