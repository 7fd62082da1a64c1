"""Delays, expiry, pauses, dead letters, full queues, clocks that jump and brokers that die, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zmule.core.effects import Bury, Forget, Save
from zmule.core.events import BatchLost, BatchSaved
from zmule.core.frames import Options
from zmule.core.mules import MuleSetup
from zmule.core.setup import Limits
from zmule.stores.store import Saved
from zmule.testing import SimClient, SimMule, World
from zmule.testing.store import SimStore

LIMITS = Limits(queue_messages=3, total_messages=9, max_deliveries=3, max_dead=5, redelivery_pause=1.0)
SPANS = st.sampled_from([None, 0.5, 3.0, 30.0])
JUMPS = st.sampled_from([-86_400.0, -10.0, 10.0, 86_400.0])


class Ledger(World):
    """A world with a disk, that notes what is accepted."""

    def __init__(self) -> None:
        super().__init__([MuleSetup(1, "a.py")], limits=LIMITS)
        self.disk = self.store = SimStore()
        self.batches: dict[int, list[Any]] = {}
        self.accepted: list[Any] = []

    def keep(self, effect: Save | Forget | Bury) -> None:
        if isinstance(effect, Save):
            self.batches[effect.batch] = [message[2] for message in effect.messages]
        super().keep(effect)

    def answer(self) -> int:
        self.disk.commit()
        answers = self.disk.completed()
        for answer in answers:
            bodies = self.batches.pop(answer.batch, [])
            if isinstance(answer, Saved):
                self.accepted += bodies
                self.happened(BatchSaved(answer.batch))
            else:
                self.happened(BatchLost(answer.batch, answer.reason))
        return len(answers)


class Machine(RuleBasedStateMachine):
    """One mule, two senders."""

    @initialize()
    def begin(self) -> None:
        self.world = Ledger()
        self.clients = [self.world.client(), self.world.client()]
        self.put: list[list[str]] = [[], []]
        self.tickets: list[tuple[SimClient, int, str]] = []
        self.mule: SimMule = self.world.spawn(1)
        self.bodies = 0
        self.dropped = 0
        self.world.settle()

    # What senders and the mule do.

    @rule(who=st.integers(0, 1), delay=SPANS, ttl=SPANS, at=st.booleans())
    def send(self, who: int, delay: float | None, ttl: float | None, at: bool) -> None:
        options = Options(delay, None, ttl)
        if at and delay is not None:
            options = Options(None, self.world.clock.wall + delay, ttl)
        self._put(who, "any", options if delay or ttl else None, None)

    @rule(
        who=st.integers(0, 1),
        counts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        seconds=st.sampled_from([2.0, 1000.0]),
        hears=st.booleans(),
    )
    def line_up(self, who: int, counts: list[int], seconds: float, hears: bool) -> None:
        """A sender goes on sending while the mule works, and perhaps hears what becomes of it."""
        for place, count in enumerate(counts):
            for _ in range(count):
                until = self.world.clock.mono + seconds
                self.put[who].append(self._put(who, "mule:1", None, until))
            if hears:
                self.hear(who)
            if place:
                self.work(2)
            self.reach(who)

    def _put(self, who: int, queue: str, options: Options | None, until: float | None) -> str:
        self.bodies += 1
        client, body = self.clients[who], str(self.bodies)
        ticket = client.outbox.put(queue, body, None, awaited=True, options=options, until=until)
        self.tickets.append((client, ticket, body))
        return body

    @rule()
    def get(self) -> None:
        self.mule.threads[0].get()

    @rule(count=st.integers(1, 3))
    def work(self, count: int) -> None:
        """The mule works on what there is, while nobody else does anything."""
        for _ in range(count):
            self.mule.threads[0].get()
            self.world.settle_only(self.mule)

    @rule(delay=st.sampled_from([None, 0.0, 5.0]), dead=st.booleans())
    def fail(self, delay: float | None, dead: bool) -> None:
        thread = self.mule.threads[0]
        if thread.delivery is not None:
            self.mule.inbox.fail(thread.delivery, delay=delay, dead=dead)
            thread.delivery = None

    @rule(what=st.sampled_from(["requeue_dead", "drop_dead"]), queue=st.sampled_from(["", "any", "mule:1"]))
    def decide(self, what: str, queue: str) -> None:
        self.clients[0].outbox.questions.ask(what, ((), queue))

    # What happens to them.

    @rule()
    def crash_mule(self) -> None:
        self.mule.kill()
        self.world.exited(1)
        self.world.settle()
        self.mule = self.world.spawn(1)

    @rule()
    def crash_broker(self) -> None:
        """The broker dies, and with it what is not on the disk."""
        self.world.disk.crash()
        for actor in self.world.actors:
            actor.cut()
        self.world.vanished.clear()
        self.world.batches.clear()
        self.mule.kill()
        self.dropped += self.world.broker.letters.dropped
        self.world.revive()
        self.mule = self.world.spawn(1)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.world.disk.full = full

    @rule(who=st.integers(0, 1))
    def pump(self, who: int) -> None:
        self.clients[who].pump()

    @rule(place=st.integers(0, 5), count=st.integers(1, 3))
    def carry(self, place: int, count: int) -> None:
        pipes = list(self.world.pipes.values())
        for _ in range(count):
            if pipes:
                self.world.carry(pipes[place % len(pipes)])

    @rule(place=st.integers(0, 5))
    def take_in(self, place: int) -> None:
        self.world.actors[place % len(self.world.actors)].take_in()

    @rule(who=st.integers(0, 1))
    def reach(self, who: int) -> None:
        """What a sender has to say gets through."""
        client = self.clients[who]
        client.pump()
        while client.pipe is not None and client.pipe.to_broker:
            self.world.carry(client.pipe)
        self.world.answer()

    @rule(who=st.integers(0, 1))
    def hear(self, who: int) -> None:
        """A sender hears all that the broker has to say."""
        client = self.clients[who]
        while client.pipe is not None and client.pipe.to_peer:
            client.take_in()

    @rule()
    def answer(self) -> None:
        self.world.answer()

    @rule(who=st.integers(0, 1))
    def cut(self, who: int) -> None:
        self.clients[who].cut()

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @rule(seconds=st.sampled_from([0.0, 0.3, 2.0, 9.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=JUMPS)
    def jump(self, seconds: float) -> None:
        self.world.clock.wall += seconds

    # What must hold.

    @invariant()
    def nothing_is_accepted_twice_or_out_of_its_senders_order(self) -> None:
        if hasattr(self, "world"):
            accepted = self.world.accepted
            assert len(accepted) == len(set(accepted))
            for put in self.put:
                own = [body for body in accepted if body in set(put)]
                assert own == [body for body in put if body in set(own)], "overtaken"

    @invariant()
    def the_limits_hold(self) -> None:
        if hasattr(self, "world"):
            broker = self.world.broker
            assert all(queue.count <= LIMITS.queue_messages for queue in broker.dispatch.queues.values())
            held = broker.room.held()[0] - broker.letters.rising()
            assert held <= LIMITS.total_messages

    def teardown(self) -> None:
        """At the end the disk works, time passes and the mule works: nothing is lost, and nobody waits."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.disk.full = False
        for step in range(50 + 2 * len(self.tickets)):
            if step % 20 == 0:
                self.clients[0].outbox.questions.ask("drop_dead", ((), ""))
            world.settle()
            self.mule.threads[0].time_out()
            self.mule.threads[0].get()
            world.settle()
            world.clock.wall = max(world.clock.wall, 1_800_000_000.0 + 2 * 86_400) + 1000
            world.pass_time(5.0)
        assert not world.broker.left(), "something waits for ever"
        for client, ticket, body in self.tickets:
            assert client.outbox.answered(ticket), f"no answer for {body}"
            error = client.outbox.outcome(ticket)
            assert (error is None) == (body in world.accepted), f"{body}: {error}"
        finished = {delivery.body for delivery in world.finished}
        gone = [body for body in world.accepted if body not in finished]
        dropped = self.dropped + world.broker.letters.dropped
        assert len(gone) <= dropped + len(world.broker.dead), "something is lost"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=60)
