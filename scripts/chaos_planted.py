"""Faults to plant into the zmuled of scripts/chaos, to see that its ledger finds them: `--fault NAME`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmule.core.broker import Broker
from zmule.core.effects import Recovery
from zmule.core.events import Event
from zmule.core.mules import Mule
from zmule.core.queues import Message
from zmule.core.redelivery import Redelivery
from zmule.core.senders import Sender, Senders

SELDOM = 300


def forget_marks() -> None:
    """Remember no sender over a restart, so that a retry is accepted again."""
    Senders.restore = lambda *_: None  # type: ignore[method-assign,assignment]


def bury_early() -> None:
    """Make a dead letter of what two mules have died with."""
    original = Redelivery.retry

    def retry(self: Redelivery, messages: list[Message], mule: Mule, reason: str, **how: Any) -> None:
        broker, limits = self._broker, self._broker.limits
        broker.limits = limits._replace(max_deliveries=2)
        original(self, messages, mule, reason, **how)
        broker.limits = limits

    Redelivery.retry = retry  # type: ignore[method-assign]


def lose_on_recovery() -> None:
    """Lose one message in five that the store has kept."""
    original = Broker.recover

    def recover(self: Broker, recovery: Recovery) -> None:
        original(self, recovery._replace(messages=[one for one in recovery.messages if one[0] % 5]))

    Broker.recover = recover  # type: ignore[method-assign]


def redeliver_without_cause() -> None:
    """Take a mule for dead now and then."""
    original = Broker.handle
    count = 0

    def handle(self: Broker, event: Event, now: Any) -> Any:
        nonlocal count
        count += 1
        busy = [mule for mule in self.roster if mule.in_flight] if count % SELDOM == 0 else []
        for mule in busy[:1]:
            messages = mule.release(list(mule.in_flight)[:1])
            self.redelivery.retry(messages, mule, f"mule {mule.number} died with it")
        return original(self, event, now)

    Broker.handle = handle  # type: ignore[method-assign]


def confirm_unsaved() -> None:
    """Pass over what comes, and confirm it, once in a while."""
    original = Sender.accept
    count = 0

    def accept(self: Sender, first: int, number: int, floor: int) -> int:
        nonlocal count
        count += 1
        seen = original(self, first, number, floor)
        return number if count % SELDOM == 0 else seen

    Sender.accept = accept  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (forget_marks, bury_early, lose_on_recovery, redeliver_without_cause, confirm_unsaved)
}


def plant(name: str) -> None:
    """Plant a fault, or none."""
    if name != "none":
        FAULTS[name]()
