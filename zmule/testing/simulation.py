"""A seed is a world and what happens in it: play it, find what it breaks, and make the story short.

`play` runs one seed: it draws the shape of a `Cluster` and a list of steps, takes them one by one, and at
the end heals everything, lets the mules work until all is quiet, and has the ledger balanced. Nothing but
the seed decides, so a failure can be played again, and `shrink` leaves out steps for as long as it fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from random import Random
from typing import NamedTuple

from zmule.core.events import MuleGivenUp, StopRequested
from zmule.core.frames import EVERY_SOURCE, Options
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.setup import Limits
from zmule.testing.cluster import Cluster
from zmule.testing.ledger import EACH
from zmule.testing.letters import claim
from zmule.testing.steps import ALWAYS, SOMETIMES, VERBS, Step
from zmule.testing.world import Actor, SimClient, SimMule, SimThread

STEPS = 150
ROUNDS, TURNS = 150, 3
IDLE_SECONDS, LOOK_SECONDS = 0.1, 0.05
"""For how long a mule may be idle while another has messages that it could have, and how often to look."""

JOBS = (0.0, 0.001, 0.02, 0.3, 3.0)
"""How long a mule works on a message, in seconds, if it takes its time."""

TOIL_SECONDS = 1.0

SIGNALS = ((1, "mule"), (EACH, "mules"), (3, "mule1"), (4, "farm_busy"))
"""The signals that mules have handlers for, with their targets."""

TRIES = 3000
"""Most attempts at making a failing list of steps shorter."""


class Post(NamedTuple):
    """A place for a mule: a number of the configuration, or one from outside."""

    number: int
    configured: bool
    farms: tuple[str, ...]
    threads: int
    signals: tuple[tuple[int, str], ...] = ()


class Failure(NamedTuple):
    """A promise that a simulation saw broken.

    Attributes:
        seed: what to play again.
        steps: what led to it; the last one did it, or the healing at the end.
        error: what is broken.
    """

    seed: int
    steps: list[Step]
    error: BaseException


class Vain:
    """Watches for messages that wait at a busy mule while another could have them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: dict[int, float] = {}

    def look(self) -> bool:
        """Return whether there are any; none may wait for long."""
        now, vain = self._cluster.clock.mono, self._cluster.waiting_in_vain()
        self._since = {id: self._since.get(id, now) for id in vain}
        for id, since in self._since.items():
            claim(
                now - since < IDLE_SECONDS + 0.001, "waits at a mule although another is idle", id, vain[id]
            )
        return bool(vain)


class Simulation:
    """A cluster with a cast.

    Args:
        seed: decides who there is and what can go wrong.
    """

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        draw = random.choice
        farms = [FarmSetup("busy", (1, 2)), FarmSetup("idle", (2,))]
        if draw((True, False)):
            farms.append(FarmSetup("early", (1,), early=True))
        setups = [MuleSetup(1, "one.py"), MuleSetup(2, "two.py"), MuleSetup(3, None)][: draw((1, 2, 2, 3))]
        limits = Limits(
            queue_messages=draw((3, 6, 30)),
            total_messages=draw((15, 1000)),
            max_deliveries=draw((2, 3, 4)),
            max_dead=draw((2, 1000)),
            queue_ttl=draw((0.0, 0.0, 0.0, 20.0)),
            returning=draw((0.0, 0.0, 3.0)),
        )
        self.cluster = Cluster(setups, farms, limits, durable=draw((True, True, True, False)))
        wishes = [(), SIGNALS, random.sample(SIGNALS, 2)]
        self.posts = [Post(setup.number, True, (), draw((1, 1, 2)), tuple(draw(wishes))) for setup in setups]
        for number in draw(((), (7,), (0,), (7, 0))):
            self.posts.append(Post(number, False, draw(((), ("busy",), ("guests", "idle"))), draw((1, 2))))
        self.crew: list[SimMule | None] = [None] * len(self.posts)
        self.clients = [self.cluster.client() for _ in range(draw((1, 1, 2)))]
        numbers = [f"mule:{post.number}" for post in self.posts if post.number]
        every = ["any", "any", *numbers, *(f"farm:{farm.name}" for farm in farms), "farm:guests", "mule:9"]
        self.queues = random.sample(every, draw((1, 2, len(every))))
        self.gone: set[bytes] = set()
        self._sent = 0

    def draw(self) -> Iterator[Step]:
        """Yield steps at random, for ever."""
        random = self.random
        groups = [ALWAYS, *(group for group in SOMETIMES if random.random() < 0.4)]
        weights = {verb.__name__: weight for group in groups for verb, weight in group.items()}
        names, bounds = list(weights), list(accumulate(weights.values()))
        while True:
            for verb in random.choices(names, cum_weights=bounds, k=100):
                yield Step(verb, random.getrandbits(8), random.getrandbits(8))

    # Who is there.

    def mules(self) -> list[SimMule]:
        """Return the mules that run."""
        return [mule for mule in self.crew if mule is not None and mule.alive]

    def awake_mules(self) -> list[SimMule]:
        """Return the mules whose threads can do something."""
        return [mule for mule in self.mules() if not mule.frozen]

    def connected(self) -> list[Actor]:
        """Return the actors that have a connection."""
        return [actor for actor in self.cluster.actors if actor.pipe is not None]

    def send(
        self,
        client: SimClient,
        queue: str,
        *,
        poison: bool = False,
        options: Options | None = None,
        patience: float | None = None,
    ) -> SimClient:
        """Let a client send a message that is like no other."""
        self._sent += 1
        body = f"poison {self._sent}" if poison else f"message {self._sent}"
        self.cluster.post(client, queue, body, options, patience)
        return client

    def start(self, place: int) -> SimMule | None:
        """Start the mule of a post that is vacant."""
        place %= len(self.posts)
        post, mule = self.posts[place], self.crew[place]
        if mule is not None and mule.alive:
            return None
        if self.cluster.broker.stopping and post.configured:
            return None
        if post.number in self.cluster.spawned and post.configured:
            self.cluster.reap(post.number)
        if post.configured:
            mule = self.cluster.spawn(post.number, threads=post.threads)
        else:
            mule = self.cluster.mule(post.number, farms=post.farms, threads=post.threads)
        for number, target in post.signals:
            if post.number == 1 or target != "mule1":
                mule.inbox.want("register_signal", number, target)
        self.crew[place] = mule
        return mule

    def give_up(self, place: int) -> int | None:
        """Let the supervisor give up the mule of a post, if it is dead."""
        post, mule = self.posts[place % len(self.posts)], self.crew[place % len(self.posts)]
        if mule is None or mule.alive or post.number not in self.cluster.spawned or not post.configured:
            return None
        self.cluster.reap(post.number)
        self.cluster.happened(MuleGivenUp(post.number, "it keeps crashing"))
        return post.number

    def in_flight(self, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the numbers of the messages that the mule of a number has, and of those that others have."""
        roster = self.cluster.broker.roster
        own = [id for mule in roster if mule.number == number for id in mule.in_flight]
        foreign = [id for mule in roster if mule.number != number for id in mule.in_flight]
        return tuple(own), tuple(foreign)

    def replace(self, place: int) -> SimClient:
        """Let a client die, and another come in its stead."""
        former = self.clients[place]
        self.cluster.kill(former)
        self.gone.add(former.session)
        client = self.clients[place] = self.cluster.client()
        return client

    def stop(self) -> str:
        """Tell the broker to stop."""
        self.cluster.happened(StopRequested())
        return "the broker"

    # What happens.

    def take(self, step: Step) -> bool:
        """Let one step happen; return whether there was anything to act upon."""
        log = self.cluster.log
        place = len(log or ())
        what = VERBS[step.verb](self, step.who, step.how)
        if self.cluster.moved:
            self.cluster.verify()
        if log is not None:
            log.insert(place, f"{step}" if what is None else f"{step!s:16} # {what}")
        return what is not None

    def rest(self) -> None:
        """Let everything move until nothing does; nothing may wait in vain then, at a mule not for long."""
        self.cluster.settle()
        self.cluster.check_rest()
        vain = Vain(self.cluster)
        while vain.look():
            self.cluster.pass_time(LOOK_SECONDS)
            self.cluster.settle()

    def toil(self) -> None:
        """Let time pass as it does where frames take none and jobs do, and nothing goes wrong."""
        cluster, vain, ends = self.cluster, Vain(self.cluster), dict[SimThread, float]()
        until = cluster.clock.mono + TOIL_SECONDS
        while (now := cluster.clock.mono) < until:
            self._take_turns(ends)
            cluster.settle()
            cluster.check_rest()
            vain.look()
            soonest = min([*ends.values(), cluster.broker.next_deadline(), now + LOOK_SECONDS])
            cluster.pass_time(max(0.001, soonest - now))

    def _take_turns(self, ends: dict[SimThread, float]) -> None:
        """Let threads that have done their jobs, or have none, ask for the next."""
        now = self.cluster.clock.mono
        for mule in self.awake_mules():
            for thread in mule.threads if mule not in self.cluster.doomed else ():
                if thread.delivery is not None:
                    ends.setdefault(thread, now + JOBS[thread.delivery.id % len(JOBS)])
                if ends.get(thread, 0.0) <= now:
                    ends.pop(thread, None)
                    thread.get(EVERY_SOURCE)

    def heal(self) -> None:
        """End all faults, let the mules work until all is quiet; then everything must be accounted for."""
        cluster = self.cluster
        if cluster.broker.stopping:
            cluster.crash()
        cluster.disk.full = False
        cluster.run_short(False)
        for actor in cluster.actors:
            actor.frozen = False
        self._relieve()
        for _ in range(ROUNDS):
            self._work()
            self.rest()
            if self._quiet():
                break
            cluster.pass_time(4.0)
            cluster.clock.wall = max(cluster.clock.wall, cluster.ledger.latest())
        self._balance()

    def _relieve(self) -> None:
        """Let a new mule come that reads everything, while all others do what they were doing."""
        self.posts.append(Post(9, False, ("busy", "idle", "guests", "early"), 1, SIGNALS))
        self.crew.append(None)
        mule = self.start(len(self.posts) - 1)
        self.rest()
        if mule is not None:
            mule.threads[0].get(EVERY_SOURCE)
        self.rest()

    def _work(self) -> None:
        for mule in list(self.cluster.doomed):
            pipe = mule.pipe
            self.cluster.kill(mule)
            if pipe is not None:
                self.cluster.end(pipe)
        for place in range(len(self.posts)):
            self.start(place)
        for mule in self.mules():
            mule.inbox.settle()
        for _ in range(TURNS):
            for mule in self.mules():
                for thread in mule.threads if mule not in self.cluster.doomed else ():
                    thread.time_out()
                    thread.get(EVERY_SOURCE)
            self.cluster.turn()
        for user in self.cluster.users.values():
            for holder in list(user.holding):
                user.unlock(holder)

    def _quiet(self) -> bool:
        for client in self.clients:
            self.cluster.heard(client)
        busy = any(client.outbox.unconfirmed() or client.outbox.expecting() for client in self.clients)
        idle = not self.cluster.broker.left() and self.cluster.disk.idle()
        return idle and not busy and not self.cluster.locks.holders

    def _balance(self) -> None:
        queues = self.cluster.broker.dispatch.queues.values()
        claim(not self.cluster.broker.left(), "never quiet", [queue for queue in queues if queue.count])
        for client in self.clients:
            claim(not client.outbox.expecting(), "waits for an answer for ever", client)
        claim(self.cluster.disk.idle(), "the store is never quiet")
        claim(not self.cluster.locks.holders, "a lock is never free", self.cluster.locks.holders)
        self.cluster.ledger.balance(self.gone)
        self._compare()

    def _compare(self) -> None:
        """What is on the disk must be what is on the books."""
        held = self.cluster.disk.recover()
        claim(not held.messages, "finished and yet on the disk", held.messages)
        dead = {one.message[2] for one in held.dead}
        known = {one.message[2] for one in self.cluster.broker.dead.values()}
        claim(dead == known, "dead letters on the disk are others", dead, known)


def play(seed: int, steps: Sequence[Step] | None = None, *, count: int = STEPS) -> Failure | None:
    """Play a seed; return what it breaks.

    Args:
        seed: decides who there is and, unless `steps` are given, what happens.
        steps: what happens instead.
        count: how many steps are drawn.
    """
    simulation = Simulation(seed)
    taken: list[Step] = []
    try:
        if steps is None:
            _draw(simulation, count, taken)
        else:
            _replay(simulation, steps, taken)
        simulation.heal()
    except Exception as error:
        return Failure(seed, taken, error)
    return None


def _draw(simulation: Simulation, count: int, taken: list[Step]) -> None:
    """Take that many steps at random, and note those that had something to act upon."""
    for step in simulation.draw():
        taken.append(step)
        if not simulation.take(step):
            taken.pop()
        elif len(taken) == count:
            return


def _replay(simulation: Simulation, steps: Sequence[Step], taken: list[Step]) -> None:
    for step in steps:
        taken.append(step)
        simulation.take(step)


def shrink(failure: Failure) -> Failure:
    """Return the same failure, or one of its kind, with fewer steps."""
    tries, size = 0, max(1, len(failure.steps) // 2)
    while True:
        place = 0
        while place < len(failure.steps) and tries < TRIES:
            tries += 1
            steps = failure.steps[:place] + failure.steps[place + size :]
            shorter = play(failure.seed, steps)
            if shorter is not None and type(shorter.error) is type(failure.error):
                failure = shorter
            else:
                place += size
        if size == 1 or tries >= TRIES:
            return failure
        size = max(1, size // 2)


def tell(failure: Failure) -> str:
    """Return the story of a failure: its seed, then each step with what came of it, then what is broken.

    Lines that do not begin with a space are what `parse` reads.
    """
    simulation = Simulation(failure.seed)
    log = simulation.cluster.log = [f"seed {failure.seed}"]
    with suppress(Exception):
        _replay(simulation, failure.steps, [])
        log.append("heal")
        simulation.heal()
    return "\n".join([*log, f"# {type(failure.error).__name__}: {failure.error}"])


def parse(story: str) -> tuple[int, list[Step]]:
    """Return the seed and the steps of a story that `tell` has told, whatever stands around it."""
    seed = re.search(r"^seed (\d+)$", story, re.MULTILINE)
    if seed is None:
        raise ValueError("no line of the story says `seed N`")
    steps = re.findall(r"^(\w+) (\d+) (\d+)\b", story[seed.end() :], re.MULTILINE)
    return int(seed[1]), [Step(verb, int(who), int(how)) for verb, who, how in steps]
