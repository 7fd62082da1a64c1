"""A broker's core under attack by a dozen peers, most of them registered; its store at times cannot write."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from fuzz_damage import Mutator
from fuzz_frames import PEERS, TOKEN, Known, Writer

from zmule.core import frames as f
from zmule.core.broker import Broker
from zmule.core.effects import Changes, Effect, Mark, Save, Send, Watch
from zmule.core.events import (
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    FrameRejected,
    MuleExited,
    MuleSpawned,
    PathRefused,
    PathWatched,
    Peer,
    PeersVanished,
)
from zmule.core.instant import Instant
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.services import Schedules
from zmule.core.setup import Limits, Setup
from zmule.core.wire import decode, encode
from zmule.daemon.cronstring import integer_schedule, string_schedule
from zmule.errors import ProtocolError

VALIDATE_EVERY = 500
LIMITS = Limits(
    max_message=2000,
    queue_messages=200,
    queue_bytes=100_000,
    total_messages=600,
    total_bytes=200_000,
    queue_ttl=60.0,
    max_dead=100,
)


class FuzzedBroker:
    """A broker with peers that send it rubbish.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.writer, self.mutator = Writer(self.draw), Mutator(self.draw)
        self.known = dict.fromkeys(PEERS, Known())
        self.now = Instant(1000.0, 1.7e9)
        mules, farms = (MuleSetup(1, "one.py"), MuleSetup(2, None)), (FarmSetup("busy", (1, 2)),)
        schedules = Schedules(integer_schedule, string_schedule)
        setup = Setup(b"b" * 16, mules, farms, LIMITS, schedules=schedules, locks=3)
        self.broker = Broker(setup, self.now)
        for mule in mules:
            self.handle(MuleSpawned(mule.number, 1, TOKEN))
        self.last = b""
        self.decoded = 0

    def turn(self, number: int) -> None:
        """Let one frame arrive, and now and then time go by or a connection end."""
        peer = self.draw.choice(PEERS)
        self.last = self.data(peer)
        self.receive(peer, self.last)
        chance = self.draw.random()
        if chance < 0.05:
            passed = self.draw.choice((*[0.01, 0.1, 1.0] * 10, 20.0, 1000.0))
            self.now = Instant(self.now.mono + passed, self.now.wall + passed)
            self.perform(self.broker.tick(self.now))
        elif chance < 0.06:
            self.handle(PeersVanished((peer,)))
        elif chance < 0.061:
            self.handle(MuleExited(1, 1, -9))
            self.handle(MuleSpawned(1, 1, TOKEN))
        if number % VALIDATE_EVERY == 0:
            self.broker.validate()

    def data(self, peer: Peer) -> bytes:
        """Return a frame: as it should be, damaged as a value, as bytes, or both."""
        chance = self.draw.random()
        frame: Any = self.writer.frame(self.writer.to_brokers, self.known[peer])
        if self.broker.roster.at(peer) is None and self.broker.senders.at(peer) is None and chance < 0.55:
            frame = [f.NUMBERS[f.Hello], *self.writer.hello(peer)]
        return self.mutator.damaged(frame, chance)

    def receive(self, peer: Peer, data: bytes) -> None:
        """Do with the bytes what the daemon does; most that are no frame come from nobody's peer."""
        try:
            frame = decode(data)
        except ProtocolError as error:
            if self.draw.random() < 0.1:
                self.handle(FrameRejected(peer, str(error)))
            return
        self.decoded += 1
        self.handle(FrameReceived(peer, frame))

    def handle(self, event: Event) -> None:
        self.perform(self.broker.handle(event, self.now))

    def perform(self, effects: list[Effect]) -> None:
        """Do what the broker says; what it sends and saves must be fit for it."""
        for effect in effects:
            if isinstance(effect, Send):
                sent = decode(encode(effect.frame))
                self.known[effect.peer] = self.known[effect.peer].heard(sent)
            elif isinstance(effect, Save):
                self.save(effect.batch, (effect.mark,) if effect.mark else ())
            elif isinstance(effect, Changes):
                self.save(effect.batch, effect.senders)
            elif isinstance(effect, Watch):
                fine = self.draw.random() < 0.5
                self.handle(PathWatched(effect.path) if fine else PathRefused(effect.path, "no such folder"))

    def save(self, batch: int, marks: Sequence[Mark]) -> None:
        assert all(mark.last < 2**63 for mark in marks), "a sequence number that no store can keep"
        if batch:
            fine = self.draw.random() < 0.95
            self.handle(BatchSaved(batch) if fine else BatchLost(batch, "disk full"))
