"""Senders, mules, deaths, delays and dead letters in any order, held to the promises after every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from zmule.core.effects import Bury, Effect, Forget, Save, Send
from zmule.core.frames import DIRECT, FARM, Body, Options
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.queues import Queue
from zmule.core.setup import Limits
from zmule.core.terms import is_held
from zmule.testing import SimClient, SimMule, World
from zmule.testing.world import Handed

QUEUES = ["any", "mule:1", "mule:2", "farm:busy", "farm:idle", "mule:7", "farm:none"]
MOST = 4
DECISIONS = st.sampled_from(["requeue_dead", "drop_dead"])
SPANS = st.sampled_from([None, None, 0.5, 3.0, 20.0])


class Noted(World):
    """A world that notes what is in no order of first deliveries: what was held, or a dead letter.

    What leaves for several mules at once is in no order either, and noted as if it were.
    """

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.unordered: set[int] = set()

    def perform(self, effects: Iterable[Effect]) -> None:
        before = len(self.delivered)
        super().perform(effects)
        self.delivered[before:] = sorted(self.delivered[before:])

    def send(self, effect: Send) -> None:
        before = len(self.delivered)
        super().send(effect)
        self.check_order(self.delivered[before:])

    def check_order(self, delivered: list[Handed]) -> None:
        """Raise AssertionError if first deliveries are not in the order of their numbers."""
        highest: dict[str, int] = {}
        for id, queue, attempt in delivered:
            if attempt == 1 and id not in self.returned and id not in self.unordered:
                assert id > highest.get(queue, 0)
                highest[queue] = id

    def keep(self, effect: Save | Forget | Bury) -> None:
        if isinstance(effect, Save):
            self.unordered.update(message[0] for message in effect.messages if is_held(message[6]))
        elif isinstance(effect, Bury):
            self.unordered.add(effect.dead.message[0])
        super().keep(effect)


class Machine(RuleBasedStateMachine):
    """The world of `zmule.testing`, driven by Hypothesis."""

    clients = Bundle("clients")
    mules = Bundle("mules")

    def __init__(self) -> None:
        super().__init__()
        setups = [MuleSetup(1, "one.py"), MuleSetup(2, "two.py")]
        farms = [FarmSetup("busy", (1, 2)), FarmSetup("idle", (2,))]
        self.world = Noted(setups, farms, Limits(queue_messages=20, max_deliveries=MOST))
        self.configured: dict[int, SimMule] = {}
        self.bodies = 0
        self.failed: set[int] = set()
        self.due: dict[Body, float] = {}

    # Who is there.

    @initialize(target=clients)
    def first_client(self) -> SimClient:
        return self.world.client()

    @initialize(target=mules)
    def first_mule(self) -> SimMule:
        return self._spawn(1, 2)

    @rule(target=clients)
    def client(self) -> SimClient:
        return self.world.client()

    @rule(target=mules, number=st.sampled_from([1, 2]), threads=st.integers(1, 3))
    def configured_mule(self, number: int, threads: int) -> SimMule:
        return self._spawn(number, threads)

    def _spawn(self, number: int, threads: int) -> SimMule:
        former = self.configured.get(number)
        if former is not None:
            former.kill()
            self.world.exited(number)
        mule = self.configured[number] = self.world.spawn(number, threads=threads)
        return mule

    @rule(target=mules, number=st.sampled_from([0, 7]), threads=st.integers(1, 3))
    def outsider(self, number: int, threads: int) -> SimMule:
        return self.world.mule(number, farms=["busy"], threads=threads)

    # What they do.

    @rule(client=clients, queue=st.sampled_from(QUEUES), count=st.integers(1, 4))
    def send(self, client: SimClient, queue: str, count: int) -> None:
        if client.alive:
            for _ in range(count):
                self.bodies += 1
                client.send(queue, f"{queue} {self.bodies}")

    @rule(client=clients, queue=st.sampled_from(QUEUES), delay=SPANS, ttl=SPANS)
    def send_on_terms(self, client: SimClient, queue: str, delay: float | None, ttl: float | None) -> None:
        """Send what is not to be delivered before some time, or not after it."""
        if client.alive:
            self.bodies += 1
            body = f"{queue} {self.bodies}"
            client.send(queue, body, Options(delay, None, ttl))
            self.due[body] = self.world.clock.mono + (delay or 0.0)

    @rule(client=clients, what=DECISIONS, queue=st.sampled_from(["", "any"]))
    def decide(self, client: SimClient, what: str, queue: str) -> None:
        client.outbox.questions.ask(what, ((), queue))

    @rule(mule=mules, place=st.integers(0, 2), sources=st.sampled_from([DIRECT, FARM, DIRECT | FARM]))
    def get(self, mule: SimMule, place: int, sources: int) -> None:
        if mule.alive:
            mule.threads[place % len(mule.threads)].get(sources)

    @rule(mule=mules, turns=st.integers(1, 4))
    def work(self, mule: SimMule, turns: int) -> None:
        """All threads of a mule finish what they have, and ask for more, while everything moves."""
        for _ in range(turns):
            for thread in mule.threads if mule.alive else ():
                thread.get()
            self.world.turn()

    @rule(mule=mules, place=st.integers(0, 2))
    def time_out(self, mule: SimMule, place: int) -> None:
        if mule.alive:
            mule.threads[place % len(mule.threads)].time_out()

    @rule(mule=mules, place=st.integers(0, 2), delay=SPANS, dead=st.booleans())
    def fail(self, mule: SimMule, place: int, delay: float | None, dead: bool) -> None:
        thread = mule.threads[place % len(mule.threads)]
        if mule.alive and thread.delivery is not None:
            self.failed.add(thread.delivery.id)
            thread.fail(delay=delay, dead=dead)

    # What happens to them.

    @rule(place=st.integers(0, 20))
    def pump(self, place: int) -> None:
        if self.world.actors:
            self.world.actors[place % len(self.world.actors)].pump()

    @rule(place=st.integers(0, 20), count=st.integers(1, 5))
    def carry(self, place: int, count: int) -> None:
        pipes = list(self.world.pipes.values())
        if pipes:
            for _ in range(count):
                self.world.carry(pipes[place % len(pipes)])

    @rule(place=st.integers(0, 20), count=st.integers(1, 5))
    def take_in(self, place: int, count: int) -> None:
        if self.world.actors:
            for _ in range(count):
                self.world.actors[place % len(self.world.actors)].take_in()

    @rule()
    def answer(self) -> None:
        self.world.answer()

    @rule()
    def notice(self) -> None:
        self.world.notice()

    @rule(place=st.integers(0, 20))
    def cut(self, place: int) -> None:
        if self.world.actors:
            self.world.actors[place % len(self.world.actors)].cut()

    @rule(mule=mules)
    def kill(self, mule: SimMule) -> None:
        mule.kill()

    @rule(seconds=st.sampled_from([0.01, 1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def turn(self) -> None:
        """Everything moves one step: without this, hardly a message would get anywhere."""
        self.world.turn()

    @rule()
    def settle(self) -> None:
        self.world.settle()

    # What must hold.

    @invariant()
    def nothing_is_in_two_live_hands(self) -> None:
        mules = [actor for actor in self.world.actors if isinstance(actor, SimMule) and actor.alive]
        registered = {mule.session: mule.epoch for mule in self.world.broker.roster if mule.peer is not None}
        hands = Counter(
            delivery.id
            for mule in mules
            if registered.get(mule.inbox.session) == mule.inbox.epoch
            for delivery in mule.hands()
        )
        assert not [id for id, count in hands.items() if count > 1]

    @invariant()
    def first_deliveries_are_in_order(self) -> None:
        self.world.check_order(self.world.delivered)

    @invariant()
    def nothing_begins_before_it_is_due(self) -> None:
        for delivery in self.world.started:
            assert self.due.get(delivery.body, 0.0) <= self.world.clock.mono + 1e-4

    @invariant()
    def what_is_delivered_again_travels_alone(self) -> None:
        for mule in self.world.broker.roster:
            again = [id for id, message in mule.in_flight.items() if message[3] > 1 and id not in self.failed]
            assert not again or len(mule.in_flight) == 1

    def _left(self) -> dict[str, Queue]:
        """Return the queues with messages that are neither finished nor buried."""
        return {name: queue for name, queue in self.world.broker.dispatch.queues.items() if queue.count}

    def teardown(self) -> None:
        """At the end everybody works: all that was confirmed must have been finished or buried."""
        world = self.world
        for actor in world.actors:
            actor.pump()
        for number in (1, 2):
            self._spawn(number, 1)
        world.mule(7, farms=["busy"])
        for turn in range(200):
            if turn >= 40 and not self._left():
                break
            world.pass_time(1.0)
            for actor in list(world.actors):
                if isinstance(actor, SimMule) and actor.alive:
                    for thread in actor.threads:
                        thread.time_out()
                        thread.get()
            world.settle()
        left = self._left()
        assert not left, f"left: {left}"
        finished = {delivery.body for delivery in world.finished}
        dead = {dead.message[2] for dead in world.broker.dead.values()}
        lost = []
        for actor in world.actors:
            if isinstance(actor, SimClient):
                refused = {refusal.sequence for refusal in actor.outbox.failures}
                for sequence, body in actor.sent.items():
                    if sequence <= actor.outbox.confirmed and sequence not in refused:
                        lost += [body] if body not in finished | dead else []
        assert len(lost) <= world.broker.letters.dropped, f"{lost} are lost"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=80)
