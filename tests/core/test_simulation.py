"""The simulation breaks no promise, and finds those that are broken on purpose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from zmule.core import broker, redelivery
from zmule.core.broker import Broker
from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Recovery
from zmule.core.events import BatchSaved
from zmule.core.frames import Confirm, Nack, Put, Recall, Report
from zmule.core.inbox import Delivery, Inbox
from zmule.core.intake import Intake
from zmule.core.mules import Mule
from zmule.core.outbox import Outbox
from zmule.core.queues import Message, Queue
from zmule.core.redelivery import Redelivery
from zmule.core.senders import Sender, Senders
from zmule.stores.store import Changes, Saved
from zmule.testing.simulation import Failure, parse, play, shrink, tell
from zmule.testing.store import SimStore

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate.py"
SEEDS = 1_000
BOUND = 1000
"""Seeds within which each planted bug must be found."""

Plant = Callable[[pytest.MonkeyPatch], None]


def found(seeds: Iterable[int]) -> Failure | None:
    """Return the first failure among the seeds."""
    return next((failure for seed in seeds if (failure := play(seed))), None)


@pytest.mark.timeout(600)
def test_no_seed_breaks_a_promise() -> None:
    done = subprocess.run([sys.executable, SCRIPT, f"--seeds={SEEDS}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds" in done.stdout


def test_a_failure_is_made_short_told_and_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    count_no_attempts(monkeypatch)
    failure = found(range(BOUND))
    assert failure is not None
    short = shrink(failure)
    assert len(short.steps) < 20 < len(failure.steps)
    story = tell(short)
    assert story.endswith(f"# Violation: {short.error}")
    seed, steps = parse(f"something before it\n{story}\nand after it\n")
    assert (seed, steps) == (short.seed, short.steps)
    again = play(seed, steps)
    assert again is not None
    assert str(again.error) == str(short.error)


def test_a_seed_is_always_the_same_story(monkeypatch: pytest.MonkeyPatch) -> None:
    bury_too_early(monkeypatch)
    first, second = found(range(BOUND)), found(range(BOUND))
    assert first is not None
    assert second is not None
    assert tell(first) == tell(second)


# Bugs.


def confirm_before_save(patch: pytest.MonkeyPatch) -> None:
    original = Broker._put

    def put(self: Broker, peer: bytes, frame: Any) -> None:
        original(self, peer, frame)
        sender = self.senders.at(peer)
        if sender is not None:
            self.send(peer, Confirm(sender.taken, ()))

    patch.setattr(Broker, "_put", put)
    patch.setitem(broker._FRAMES, Put, put)


def answer_before_commit(patch: pytest.MonkeyPatch) -> None:
    original = SimStore.save

    def save(self: SimStore, changes: Changes) -> None:
        original(self, changes)
        if changes.batch:
            self._answers.append(Saved(changes.batch))
            self._given[-1] = changes._replace(batch=0)

    patch.setattr(SimStore, "save", save)


def lose_a_confirm(patch: pytest.MonkeyPatch) -> None:
    original = Broker._saved

    def saved(self: Broker, event: Any) -> None:
        if event.batch % 5:
            original(self, event)
        else:
            patch.setattr(Broker, "confirm", lambda *_: None)
            original(self, event)
            patch.setattr(Broker, "confirm", confirm)

    confirm = Broker.confirm
    patch.setitem(broker._HANDLERS, BatchSaved, saved)


def lose_a_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sender, "refused_after", lambda self, floor: ())


def requeue_at_the_tail(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "put_back", lambda self, messages: self.ready.extend(messages))


def requeue_in_no_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "put_back", lambda self, messages: self.ready.extendleft(messages))


def take_acks_of_anybody(patch: pytest.MonkeyPatch) -> None:
    def acknowledge(self: Broker, mule: Mule, epoch: int, ids: Iterable[int]) -> None:
        for other in self.roster:
            self.finish(other.release(ids))

    patch.setattr(Broker, "_acknowledge", acknowledge)


def take_acks_of_any_epoch(patch: pytest.MonkeyPatch) -> None:
    original = Broker._report

    def report(self: Broker, peer: bytes, frame: Any) -> None:
        mule = self.roster.at(peer)
        if mule is not None:
            self._acknowledge(mule, mule.epoch, frame.acks)
        original(self, peer, frame)

    patch.setitem(broker._FRAMES, Report, report)


def take_failures_of_any_epoch(patch: pytest.MonkeyPatch) -> None:
    original = Broker._nack

    def nack(self: Broker, peer: bytes, frame: Any) -> None:
        mule = self.roster.at(peer)
        original(self, peer, frame._replace(epoch=mule.epoch) if mule else frame)

    patch.setitem(broker._FRAMES, Nack, nack)


def acknowledge_in_a_new_epoch(patch: pytest.MonkeyPatch) -> None:
    def drop(self: Inbox, delivery: Delivery, ids: list[int]) -> None:
        self._held.pop(delivery.id, None)
        ids.append(delivery.id)
        self._news = True

    patch.setattr(Inbox, "_drop", drop)
    take_acks_of_anybody(patch)


def keep_the_buffer(patch: pytest.MonkeyPatch) -> None:
    original = Inbox.welcomed

    def welcomed(self: Inbox, frame: Any) -> None:
        buffers = self._buffers
        original(self, frame)
        for name, buffer in buffers.items():
            self._buffers.setdefault(name, buffer).extend(buffer)

    patch.setattr(Inbox, "welcomed", welcomed)
    patch.setattr(Inbox, "lost", lambda _: None)


def forget_who_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Senders, "restore", lambda *_: None)


def take_duplicates(patch: pytest.MonkeyPatch) -> None:
    original = Sender.accept

    def accept(self: Sender, *arguments: int) -> int:
        original(self, *arguments)
        return 0

    patch.setattr(Sender, "accept", accept)


def resend_before_the_confirm(patch: pytest.MonkeyPatch) -> None:
    original = Outbox.welcomed

    def welcomed(self: Outbox, frame: Any) -> None:
        original(self, frame)
        self._resuming = False

    patch.setattr(Outbox, "welcomed", welcomed)
    take_duplicates(patch)


def forget_what_was_sent(patch: pytest.MonkeyPatch) -> None:
    original = Outbox.lost

    def lost(self: Outbox) -> None:
        self._sent.clear()
        original(self)

    patch.setattr(Outbox, "lost", lost)


def count_no_attempts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(redelivery, "again", lambda message: message)


def punish_what_was_not_started(patch: pytest.MonkeyPatch) -> None:
    original = Dispatcher.put_back

    def put_back(self: Dispatcher, messages: Iterable[Message]) -> None:
        original(self, [(*message[:3], max(message[3], 2), *message[4:]) for message in messages])

    patch.setattr(Dispatcher, "put_back", put_back)


def let_company_travel_with_poison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "_may_take", lambda self, mule, queue: mule.room(queue.source) > 0)


def bury_too_early(patch: pytest.MonkeyPatch) -> None:
    original = Redelivery.retry

    def retry(self: Redelivery, messages: list[Message], mule: Mule, reason: str, **how: Any) -> None:
        broker = self._broker
        limits = broker.limits
        broker.limits = limits._replace(max_deliveries=limits.max_deliveries - 1)
        original(self, messages, mule, reason, **how)
        broker.limits = limits

    patch.setattr(Redelivery, "retry", retry)


def forget_recalls(patch: pytest.MonkeyPatch) -> None:
    original = Broker.send

    def send(self: Broker, peer: bytes, frame: Any) -> None:
        if not isinstance(frame, Recall):
            original(self, peer, frame)

    patch.setattr(Broker, "send", send)


def let_a_mule_stand_idle(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "serve", lambda self, queue: None)


def never_miss_a_heartbeat(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Broker, "_silent_since", lambda self, mule: float("inf"))


def believe_in_dead_brokers(patch: pytest.MonkeyPatch) -> None:
    for link in (Inbox, Outbox):
        patch.setattr(link, "broken", lambda self, now: False)
        patch.setattr(link, "_reset", lambda self, frame, now: None)


def drop_what_a_dead_mule_had(patch: pytest.MonkeyPatch) -> None:
    original = Broker.lose

    def lose(self: Broker, mule: Mule) -> None:
        self.dispatch.account(list(mule.in_flight.values()), -1)
        self.acked += len(mule.in_flight)
        mule.in_flight.clear()
        original(self, mule)

    patch.setattr(Broker, "lose", lose)


def number_messages_from_one(patch: pytest.MonkeyPatch) -> None:
    original = Intake.recover
    patch.setattr(Intake, "recover", lambda self, next_id, count: original(self, 1, count))


def forget_dead_letters(patch: pytest.MonkeyPatch) -> None:
    original = Broker.recover

    def recover(self: Broker, recovery: Recovery) -> None:
        original(self, recovery._replace(dead=[]))

    patch.setattr(Broker, "recover", recover)


BUGS: list[Plant] = [
    confirm_before_save,
    answer_before_commit,
    lose_a_confirm,
    lose_a_refusal,
    requeue_at_the_tail,
    requeue_in_no_order,
    take_acks_of_anybody,
    take_acks_of_any_epoch,
    take_failures_of_any_epoch,
    acknowledge_in_a_new_epoch,
    keep_the_buffer,
    forget_who_sent,
    take_duplicates,
    resend_before_the_confirm,
    forget_what_was_sent,
    count_no_attempts,
    punish_what_was_not_started,
    let_company_travel_with_poison,
    bury_too_early,
    forget_recalls,
    let_a_mule_stand_idle,
    never_miss_a_heartbeat,
    believe_in_dead_brokers,
    drop_what_a_dead_mule_had,
    number_messages_from_one,
    forget_dead_letters,
]


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__.replace("_", " "))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    failure = found(range(BOUND))
    assert failure is not None
    assert isinstance(failure.error, AssertionError), failure
    print(failure.seed, failure.error)
    monkeypatch.undo()
    assert play(failure.seed) is None
