"""NATS JetStream on files: asynchronous publish with its own window of unconfirmed messages, pull and ack.

With its defaults a confirmed message is written, and synced some time later. zmule syncs before it confirms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.nats_core import SUBJECT, connected, served
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True
STREAM, MULES, BATCH = "BENCH", "mules", 500


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    with served(folder, "-js", "-sd", str(folder)) as address:
        yield address


def send(role: Role, bodies: Iterator[bytes]) -> None:
    asyncio.run(publish(role, bodies))


async def publish(role: Role, bodies: Iterator[bytes]) -> None:
    stream = (await connected(role)).jetstream()
    await stream.add_stream(name=STREAM, subjects=[SUBJECT])
    futures = [await stream.publish_async(SUBJECT, body) for body in bodies]
    for future in futures:
        await future


def receive(role: Role, handled: Handled) -> None:
    asyncio.run(pull(role, handled))


async def pull(role: Role, handled: Handled) -> None:
    import nats

    stream = (await connected(role)).jetstream()
    await stream.add_stream(name=STREAM, subjects=[SUBJECT])
    subscription = await stream.pull_subscribe(SUBJECT, MULES, stream=STREAM)
    handled.ready()
    while True:
        with contextlib.suppress(nats.errors.TimeoutError):
            for message in await subscription.fetch(BATCH, timeout=1):
                handled(message.data)
                await message.ack()
