"""Bugs to plant into the cores, one at a time: each breaks one of the promises that the simulation checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from zmule.core import dispatch, redelivery
from zmule.core.asking import Asked
from zmule.core.broker import Broker
from zmule.core.dead import DeadLetters
from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Changes, Effect, Recovery
from zmule.core.events import BatchLost, BatchSaved
from zmule.core.expiry import Expiry
from zmule.core.frames import Answer, Confirm, Recall
from zmule.core.hangs import Hangs
from zmule.core.inbox import Arrival, Hand, Inbox
from zmule.core.intake import Intake
from zmule.core.lanes import Lanes
from zmule.core.locks import Locks
from zmule.core.lockservice import LockService
from zmule.core.mules import Mule, Roster
from zmule.core.outbox import Outbox
from zmule.core.queues import Message, Queue
from zmule.core.redelivery import Redelivery
from zmule.core.returns import Returns
from zmule.core.room import Room
from zmule.core.senders import Sender, Senders
from zmule.core.services import Services
from zmule.core.turns import Turns
from zmule.stores.store import Saved
from zmule.testing.store import SimStore

Plant = Callable[[pytest.MonkeyPatch], None]


def confirm_before_save(patch: pytest.MonkeyPatch) -> None:
    original = Broker._put

    def put(self: Broker, peer: bytes, frame: Any) -> None:
        original(self, peer, frame)
        sender = self.senders.at(peer)
        if sender is not None:
            self.send(peer, Confirm(sender.taken, ()))

    patch.setattr(Broker, "_put", put)


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
    patch.setattr(Broker, "_saved", saved)


def lose_a_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sender, "refused_after", lambda self, floor: ())


def requeue_at_the_tail(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "put_back", lambda self, messages: self.ready.extend(messages))


def requeue_in_no_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "put_back", lambda self, messages: self.ready.extendleft(messages))


def take_acks_of_anybody(patch: pytest.MonkeyPatch) -> None:
    def acknowledge(self: Turns, mule: Mule, epoch: int, ids: Iterable[int]) -> None:
        for other in self._roster:
            self.finish(other.release(ids))

    patch.setattr(Turns, "_acknowledge", acknowledge)


def take_acks_of_any_epoch(patch: pytest.MonkeyPatch) -> None:
    original = Turns.report

    def report(self: Turns, peer: bytes, frame: Any) -> None:
        mule = self._roster.at(peer)
        if mule is not None:
            self._acknowledge(mule, mule.epoch, frame.acks)
        original(self, peer, frame)

    patch.setattr(Turns, "report", report)


def take_failures_of_any_epoch(patch: pytest.MonkeyPatch) -> None:
    original = Turns.nack

    def nack(self: Turns, peer: bytes, frame: Any) -> None:
        mule = self._roster.at(peer)
        original(self, peer, frame._replace(epoch=mule.epoch) if mule else frame)

    patch.setattr(Turns, "nack", nack)


def acknowledge_in_a_new_epoch(patch: pytest.MonkeyPatch) -> None:
    def finish(self: Inbox, arrival: Arrival) -> None:
        self.acks.append(arrival[0])
        self.news = True

    patch.setattr(Inbox, "finish", finish)
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


def deliver_backwards(patch: pytest.MonkeyPatch) -> None:
    original = dispatch._pack
    patch.setattr(dispatch, "_pack", lambda messages: original(messages[::-1]))


def never_miss_a_heartbeat(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Broker, "_silent_since", lambda self, mule: float("inf"))


def believe_in_dead_brokers(patch: pytest.MonkeyPatch) -> None:
    for link in (Inbox, Outbox):
        patch.setattr(link, "broken", lambda self, now: False)
        patch.setattr(link, "_reset", lambda self, frame, now: None)


def drop_what_a_dead_mule_had(patch: pytest.MonkeyPatch) -> None:
    original = Turns.lose

    def lose(self: Turns, mule: Mule) -> None:
        self._dispatch.account(list(mule.in_flight.values()), -1)
        self.acked += len(mule.in_flight)
        mule.in_flight.clear()
        original(self, mule)

    patch.setattr(Turns, "lose", lose)


def number_messages_from_one(patch: pytest.MonkeyPatch) -> None:
    original = Intake.recover
    patch.setattr(Intake, "recover", lambda self, next_id, count: original(self, 1, count))


def forget_dead_letters(patch: pytest.MonkeyPatch) -> None:
    original = Broker.recover

    def recover(self: Broker, recovery: Recovery) -> None:
        original(self, recovery._replace(dead=[]))

    patch.setattr(Broker, "recover", recover)


# Terms.


def forget_delays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Redelivery, "enqueue", lambda self, name, messages: self._broker.dispatch.enqueue(name, messages)
    )


def forget_terms_over_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(redelivery, "recovered", lambda terms, born, steady: None)


def measure_spans_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Broker, "steady", lambda self: self.now.wall)


def ignore_the_delay_of_a_nack(patch: pytest.MonkeyPatch) -> None:
    original = Redelivery._put_back
    patch.setattr(Redelivery, "_put_back", lambda self, messages, delay: original(self, messages, None))


def take_a_rejection_for_a_failure(patch: pytest.MonkeyPatch) -> None:
    original = Turns.nack
    patch.setattr(Turns, "nack", lambda self, peer, frame: original(self, peer, frame._replace(dead=False)))


def ignore_ttl(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Expiry, "_of", lambda self, message: float("inf"))


def look_at_the_head_only_for_what_has_expired(patch: pytest.MonkeyPatch) -> None:
    original = Expiry.note

    def note(self: Expiry, messages: Iterable[Message]) -> None:
        original(self, messages)
        self._own = False

    patch.setattr(Expiry, "note", note)


def lose_what_has_expired(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeadLetters, "bury_expired", lambda self, messages: self._broker.turns.finish(messages))


# Dead letters.


def drop_letters_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    original = Broker.do

    def do(self: Broker, effect: Effect) -> None:
        if not isinstance(effect, Changes) or effect.messages or not effect.undead:
            original(self, effect)

    patch.setattr(Broker, "do", do)


def lose_a_requeued_letter(patch: pytest.MonkeyPatch) -> None:
    original = DeadLetters.saved

    def saved(self: DeadLetters, batch: int) -> bool:
        rising = self._rising.get(batch)
        risen = original(self, batch)
        if rising is not None:
            self._broker.dispatch.empty(rising.messages[0][1])
        return risen

    patch.setattr(DeadLetters, "saved", saved)


def requeue_without_a_record(patch: pytest.MonkeyPatch) -> None:
    original = DeadLetters._requeue

    def requeue(self: DeadLetters, asked: Asked) -> Any:
        answer = original(self, asked)
        if self._rising:
            batch = max(self._rising)
            self._broker._effects.pop()
            self.saved(batch)
        return answer

    patch.setattr(DeadLetters, "_requeue", requeue)


# Senders that wait.


def let_a_sender_overtake_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lanes, "closed", lambda self, queue: False)


def let_what_is_under_way_overtake(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sender, "overtaking", lambda self, queue, floor: None)


def tell_nobody_of_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "grant", lambda self: iter(()))


# Signals.


def lose_raises_over_a_restart(patch: pytest.MonkeyPatch) -> None:
    original = Broker.recover

    def recover(self: Broker, recovery: Recovery) -> None:
        messages = [message for message in recovery.messages if not message[1].startswith("signal:")]
        original(self, recovery._replace(messages=messages))

    patch.setattr(Broker, "recover", recover)


def run_once_for_several_raises(patch: pytest.MonkeyPatch) -> None:
    original = Intake._raise_each

    def raise_each(self: Intake, sender: Sender, sequence: int, batch: Any, *rest: Any) -> Any:
        return original(self, sender, sequence, batch._replace(bodies=batch.bodies[:1]), *rest)

    patch.setattr(Intake, "_raise_each", raise_each)


def adopt_strays_of_any_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "take_out", lambda self, name, body: self.empty(name))


def leave_strays_where_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Services, "_adopt", lambda self, number: None)


def give_signals_only_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "_first_message", lambda self, mule: None)


def give_messages_out_first(patch: pytest.MonkeyPatch) -> None:
    message, signal = Dispatcher._first_message, Dispatcher._oldest_signal
    patch.setattr(Dispatcher, "_oldest_signal", lambda self, mule: message(self, mule) or signal(self, mule))


def take_signals_only_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hand, "signalled", property(lambda self: False, lambda self, value: None))


# Peers that are gone, and those that come back.


def remember_who_was_evicted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Senders, "disconnect", lambda self, peer, now: None)


def wait_for_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Returns, "expecting", lambda self, now: False)


def let_what_does_not_wait_overtake(patch: pytest.MonkeyPatch) -> None:
    original = Returns.hold

    def hold(self: Returns, peer: bytes, frame: Any, now: float) -> bool:
        return self._misses(frame) and original(self, peer, frame, now)

    patch.setattr(Returns, "hold", hold)


def turn_round_what_has_waited(patch: pytest.MonkeyPatch) -> None:
    original = Returns.ready
    patch.setattr(Returns, "ready", lambda self, now: original(self, now)[::-1])


def lose_what_has_waited(patch: pytest.MonkeyPatch) -> None:
    original = Returns.ready
    patch.setattr(Returns, "ready", lambda self, now: original(self, now)[:0])


# Locks.


def give_a_lock_twice(patch: pytest.MonkeyPatch) -> None:
    original = LockService._lock

    def lock(self: LockService, asked: Asked) -> object:
        count = len(self._broker._effects)
        later = original(self, asked)
        if len(self._broker._effects) == count:
            self._broker.send(asked.peer, Answer(asked.request, "", self._locks.next_token))
        return later

    patch.setattr(LockService, "_lock", lock)


def keep_locks_of_the_dead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LockService, "gone", lambda self, peer: None)


def number_grants_from_one(patch: pytest.MonkeyPatch) -> None:
    original = LockService.restore

    def restore(self: LockService, facts: Mapping[str, bytes]) -> None:
        original(self, facts)
        self._locks.next_token = 1

    patch.setattr(LockService, "restore", restore)


def give_locks_to_the_last_first(patch: pytest.MonkeyPatch) -> None:
    original = Locks._end

    def end(self: Locks, claim: Any) -> Any:
        waiting = claim.lock.waiting
        if waiting:
            waiting.move_to_end(next(reversed(waiting)), last=False)
        return original(self, claim)

    patch.setattr(Locks, "_end", end)


# Stores that fail.


def confirm_a_lost_batch(patch: pytest.MonkeyPatch) -> None:
    def lost(self: Broker, event: BatchLost) -> None:
        self._saved(BatchSaved(event.batch))

    patch.setattr(Broker, "_lost", lost)


def drop_a_refusal_for_want_of_a_disk(patch: pytest.MonkeyPatch) -> None:
    original = Intake.lost
    patch.setattr(Intake, "lost", lambda self, *about: original(self, *about)._replace(refusals=()))


# Mules that stand idle.


def never_ask_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "_recall", lambda self, mule, most: None)


def give_back_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inbox, "_give_back", lambda self, most: None)


def let_hanging_mules_live(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hangs, "_kill", lambda self, mule, why: None)


def kill_who_hangs_no_more(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hangs, "connected", lambda self, mule: None)
    patch.setattr(Hangs, "validate", lambda self: None)


# Limits.


def take_messages_though_memory_is_short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Broker, "_memory_short", lambda self, event: None)


def take_more_than_a_queue_may_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "refusal", lambda self, *about: None)


def take_a_standstill_for_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "credit", lambda self, seconds: None)


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
    deliver_backwards,
    never_miss_a_heartbeat,
    believe_in_dead_brokers,
    drop_what_a_dead_mule_had,
    number_messages_from_one,
    forget_dead_letters,
    forget_delays,
    forget_terms_over_a_restart,
    measure_spans_by_the_wall_clock,
    ignore_the_delay_of_a_nack,
    take_a_rejection_for_a_failure,
    ignore_ttl,
    look_at_the_head_only_for_what_has_expired,
    lose_what_has_expired,
    drop_letters_in_memory_only,
    lose_a_requeued_letter,
    requeue_without_a_record,
    let_a_sender_overtake_itself,
    let_what_is_under_way_overtake,
    tell_nobody_of_room,
    lose_raises_over_a_restart,
    run_once_for_several_raises,
    adopt_strays_of_any_number,
    leave_strays_where_they_are,
    give_signals_only_out,
    give_messages_out_first,
    take_signals_only_up,
    remember_who_was_evicted,
    wait_for_nobody,
    let_what_does_not_wait_overtake,
    turn_round_what_has_waited,
    lose_what_has_waited,
    give_a_lock_twice,
    keep_locks_of_the_dead,
    number_grants_from_one,
    give_locks_to_the_last_first,
    confirm_a_lost_batch,
    drop_a_refusal_for_want_of_a_disk,
    never_ask_back,
    give_back_nothing,
    let_hanging_mules_live,
    kill_who_hangs_no_more,
    take_messages_though_memory_is_short,
    take_more_than_a_queue_may_hold,
    take_a_standstill_for_silence,
]
