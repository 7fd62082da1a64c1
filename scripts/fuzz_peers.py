"""The sessions of a mule and of a client under attack: the broker that they talk to sends rubbish.

They end with `ProtocolError`, and others take their places; while they last they go on working, and what they
send is fit for the wire.
"""

from __future__ import annotations

import random

from fuzz_damage import Mutator
from fuzz_frames import Known, Writer

from zmule.core import frames as f
from zmule.core.inbox import Hand, Inbox, Waiter
from zmule.core.outbox import Outbox
from zmule.core.wire import decode, encode
from zmule.errors import ProtocolError, ZmuleError

SESSION_ENDS = 0.002
WELCOME = f.NUMBERS[f.Welcome]


class FuzzedPeers:
    """A mule and a client of a broker that sends them rubbish.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.writer, self.mutator = Writer(self.draw), Mutator(self.draw)
        self.now = 1000.0
        self.known = Known()
        self.last = b""
        self.decoded = 0
        self.inbox, self.outbox = self.mule(), self.client()

    def mule(self) -> Inbox:
        return Inbox(bytes(16), number=1, farms=("busy",), program="p", pid=1, token=b"")

    def client(self) -> Outbox:
        return Outbox(bytes(16), most_messages=100, most_bytes=10_000)

    def turn(self, _: int) -> None:
        """Let one frame arrive at the mule or the client, and let that do something."""
        self.now += self.draw.choice((0.0, 0.001, 1.0))
        link = self.draw.choice((self.inbox, self.outbox))
        try:
            self.receive(link)
            self.work()
            for frame in link.outgoing(self.now):
                decode(encode(frame))
            self.rest(link)
        except ProtocolError:
            self.replace(link)
        if link.error is not None or self.draw.random() < SESSION_ENDS:
            self.replace(link)

    def receive(self, link: Inbox | Outbox) -> None:
        chance = self.draw.random()
        kinds = self.writer.to_mules if link is self.inbox else self.writer.to_clients
        frame = self.writer.frame(kinds, self.known)
        if link.state == "greeting" and chance < 0.6:
            frame = [WELCOME, *self.writer.fields[f.Welcome](self.known)]
        self.last = self.mutator.damaged(frame, chance)
        try:
            heard = decode(self.last)
        except ProtocolError:  # would end the session, and so nearly every one early
            return
        self.decoded += 1
        if self.draw.random() < 0.02:
            self.inbox.broadcast(heard)
        else:
            link.receive(heard, self.now)
            self.known = self.known.heard(heard) if isinstance(heard, f.Welcome) else self.known

    def work(self) -> None:
        """Do what threads of the program do."""
        arrival = self.inbox.advance(Hand(), f.EVERY_SOURCE)
        if arrival is None:
            self.inbox.wait(Waiter(self.draw.randint(1, 15)), probe=self.draw.random() < 0.1)
        else:
            self.draw.choice((self.inbox.finish, self.inbox.fail, self.inbox.give_back))(arrival)
        if self.draw.random() < 0.1:
            self.inbox.ask("status")
            self.inbox.want("register_signal", 17, "mule")
        if self.outbox.fits():
            try:
                self.outbox.put("any", "x", None, awaited=False, until=self.draw.choice((None, self.now + 1)))
            except ZmuleError:  # a broker may allow no messages at all
                return

    def rest(self, link: Inbox | Outbox) -> None:
        """Ask what the shell asks before it waits: for how long it may."""
        link.broken(self.now)
        due = link.next_deadline(self.now)
        if due is not None:
            int(max(0.0, due - self.now) * 1000).to_bytes(8)

    def replace(self, link: Inbox | Outbox) -> None:
        """Put a new session in the place of one that has ended."""
        if link is self.inbox:
            self.inbox = self.mule()
        else:
            self.outbox = self.client()
