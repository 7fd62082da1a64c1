"""NATS without JetStream: publish, and a queue group. Nothing is confirmed, acknowledged or kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_ports

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True
SUBJECT, GROUP = "bench", "mules"


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a NATS server; give its URL."""
    processes.module("nats")
    port = free_ports(1)
    command = (processes.binary("nats-server"), "-a", "127.0.0.1", "-p", str(port), *arguments)
    with processes.running(*command, cwd=folder) as process:
        processes.wait_until(lambda: processes.answers(port), "NATS answers", process)
        yield f"nats://127.0.0.1:{port}"


async def connected(role: Role) -> Any:
    import nats

    return await nats.connect(role.address)


def send(role: Role, bodies: Iterator[bytes]) -> None:
    asyncio.run(publish(role, bodies))


async def publish(role: Role, bodies: Iterator[bytes]) -> None:
    client = await connected(role)
    for body in bodies:
        await client.publish(SUBJECT, body)
        if role.plan.single:
            await client.flush()
    await client.flush()


def receive(role: Role, handled: Handled) -> None:
    asyncio.run(subscribe(role, handled))


async def subscribe(role: Role, handled: Handled) -> None:
    client = await connected(role)
    subscription = await client.subscribe(SUBJECT, GROUP)
    await client.flush()
    handled.ready()
    async for message in subscription.messages:
        handled(message.data)
