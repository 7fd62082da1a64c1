"""zmule itself, with the defaults of the product."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role
from zmule import BrokerUnavailable, Client, Mule


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    store = (f"--store=sqlite://{folder}/zmule.db",) if plan.durable else ()
    with zmuled(folder, *store) as address:
        yield address


@contextlib.contextmanager
def zmuled(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run zmuled; give its endpoint when it answers."""
    address = f"ipc://{folder}/zmule.sock"
    command = (processes.COMMANDS / "zmuled", "--endpoint", address, *arguments)
    with processes.running(*command, cwd=folder, environ=environ) as process:
        processes.wait_until(lambda: answers(address), "zmuled answers", process)
        yield address


def answers(address: str) -> bool:
    with Client(address, timeout=1) as client, contextlib.suppress(BrokerUnavailable):
        return bool(client.status())
    return False


def send(role: Role, bodies: Iterator[bytes]) -> None:
    number = 0 if role.plan.shared else 1
    with Client(role.address) as client:
        client.status()
        for body in bodies:
            client.mule_msg(body, number, wait=role.plan.single)
        client.flush(timeout=processes.PATIENCE)


def receive(role: Role, handled: Handled) -> None:
    mule = Mule(role.row - role.plan.senders + 1, endpoint=role.address)
    handled.ready()
    while True:
        body = mule.get_msg()
        assert isinstance(body, bytes)
        handled(body)
