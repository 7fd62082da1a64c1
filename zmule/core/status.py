"""The broker's status as plain data: what `zmule status --json` prints and `Client.status()` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmule.core.dispatch import Tally
from zmule.core.frames import DIRECT, FARM, STRAY
from zmule.core.instant import Instant
from zmule.core.queues import ANY, Queue

if TYPE_CHECKING:
    from zmule.core.broker import Broker
    from zmule.core.mules import Mule

MOST_WORK = 10
"""Messages that a mule works on, as far as they are listed."""


def status(broker: Broker, now: Instant) -> dict[str, Any]:
    """Return the status; its keys are documented in docs/status.rst."""
    dispatch, intake, services = broker.dispatch, broker.intake, broker.services
    mules = sorted(broker.roster, key=lambda mule: mule.number)
    messages, size = broker.room.held()
    return {
        "broker": {
            **broker.setup.about,
            "uptime_s": now.mono - broker.started.mono,
            "stopping": broker.stopping,
            "clients": broker.senders.connected(),
            "store_error": broker.store_error,
            "memory_error": broker.memory_error,
            **broker.setup.vitals(),
            "messages": messages,
            "bytes": size,
            "kept": broker.room.kept(),
            "limits": broker.limits._asdict(),
        },
        "mules": [mule.status(now) | {"work": _work(broker, mule)} for mule in mules if mule.number > 0],
        "workers": [-mule.number for mule in reversed(mules) if mule.number < 0],
        "farms": broker.roster.members(),
        "queues": {
            name: _queue(broker, queue)
            for name, queue in sorted(dispatch.queues.items())
            if queue.source in (DIRECT, FARM) or (queue.source == STRAY and queue.count)
        },
        "signals": services.signals.status(lambda name: dispatch.length(name)[0]),
        "timers": [*services.timers.status(*now), *services.monitors.status()],
        "locks": services.locks.status(),
        "dead": {"count": len(broker.dead), "bytes": broker.letters.bytes},
        "totals": {
            "accepted": intake.accepted,
            **_deliveries(broker),
            "acked": broker.turns.acked,
            "refused": intake.refused,
            "dead": len(broker.dead),
            "dropped": broker.letters.dropped,
        },
    }


def _work(broker: Broker, mule: Mule) -> list[dict[str, Any]]:
    """Return what the mule works on, the oldest first."""
    steady = broker.steady()
    return [
        {"id": id, "queue": queue, "attempt": attempt, "age_s": max(0.0, steady - born)}
        for id, queue, _, attempt, born, _, _ in mule.begun()[:MOST_WORK]
    ]


def _deliveries(broker: Broker) -> dict[str, int]:
    """Return how many deliveries programs have seen, and how many were taken back before one had."""
    handed, unseen, ahead = broker.dispatch.handed, broker.dispatch.unseen, Tally()
    for mule in broker.roster:
        ahead.add(mule.unseen())
    return {
        "delivered": handed.count - unseen.count - ahead.count,
        "redelivered": handed.again - unseen.again - ahead.again,
        "recalled": unseen.count,
    }


def _queue(broker: Broker, queue: Queue) -> dict[str, Any]:
    delayed = broker.redelivery.delays.counts.get(queue.name, 0)
    entry: dict[str, Any] = {
        "ready": len(queue.ready),
        "in_flight": queue.count - len(queue.ready) - delayed,
        "delayed": delayed,
        "dead": broker.letters.counts.get(queue.name, 0),
        "bytes": queue.bytes,
        "oldest_age_s": max(0.0, broker.steady() - queue.ready[0][4]) if queue.ready else None,
        "ttl_s": broker.setup.ttl(queue.name) or None,
    }
    if queue.name == ANY or queue.count:
        entry["no_reader_since"] = queue.unread_since
    return entry
