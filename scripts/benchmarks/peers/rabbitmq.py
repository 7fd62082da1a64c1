"""RabbitMQ with publisher confirms and acks, by pika's blocking connection: a confirm for each message.

Durable is a durable queue with persistent messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_ports

from benchmarks import processes
from benchmarks.line import Skipped
from benchmarks.plan import Handled, Plan, Role

OWN_PYTHON = True
QUEUE, PREFETCH = "bench", 1000
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    """Run a node of its own, with a port mapper of its own that ends with it."""
    processes.module("pika")
    if not SERVER.exists():
        raise Skipped("rabbitmq-server is not installed; scripts/peers installs it")
    port, mapper, between = (free_ports(1) for _ in range(3))
    environ = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(between),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }
    epmd = (processes.binary("epmd"), "-port", str(mapper), "-address", "127.0.0.1")
    with (
        processes.running(*epmd, cwd=folder),
        processes.running(SERVER, cwd=folder, environ=environ) as process,
    ):
        processes.wait_until(lambda: processes.answers(port), "RabbitMQ answers", process)
        yield f"{port} {int(plan.durable)}"


def connected(role: Role) -> tuple[Any, Any]:
    """Return pika, and a channel with the queue declared."""
    import pika

    port, durable = map(int, role.address.split())
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=bool(durable), auto_delete=False)
    return pika, channel


def send(role: Role, bodies: Iterator[bytes]) -> None:
    pika, channel = connected(role)
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2 if role.plan.durable else 1)
    for body in bodies:
        channel.basic_publish("", QUEUE, body, properties)


def receive(role: Role, handled: Handled) -> None:
    _, channel = connected(role)
    channel.basic_qos(prefetch_count=PREFETCH)
    handled.ready()
    for method, _, body in channel.consume(QUEUE):
        handled(body)
        channel.basic_ack(method.delivery_tag)
