"""What is to be done in one course, and what a peer must be able to do for it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol


class Plan(NamedTuple):
    """One course.

    Attributes:
        peer: the name of the peer's module.
        senders, mules: how many processes send and receive.
        size: bytes of a message.
        messages: how many in all.
        durable: on the disk before they are confirmed.
        rate: messages a second of one sender; 0 is as fast as it goes.
        single: each is sent by a call of its own that returns when the peer has it.
        notes: how many numbers receivers note of each message. If it is one, that is how long it took: each
            carries the time of its sending then.
    """

    peer: str
    senders: int = 1
    mules: int = 1
    size: int = 100
    messages: int = 100_000
    durable: bool = False
    rate: float = 0
    single: bool = False
    notes: int = 0

    @property
    def timed(self) -> bool:
        return self.notes == 1

    @property
    def shared(self) -> bool:
        """Whether the mules share a queue; a single one has its own."""
        return self.mules > 1

    @property
    def share(self) -> int:
        """How many messages each sender sends."""
        return self.messages // self.senders

    @property
    def total(self) -> int:
        """How many messages all senders send: `messages`, but for what does not divide evenly."""
        return self.share * self.senders

    def text(self) -> str:
        return json.dumps(self)


class Role(NamedTuple):
    """What one process of a course is: told to it in one word of its command line."""

    plan: Plan
    row: int
    board: str
    address: str

    def text(self) -> str:
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> Role:
        plan, *rest = json.loads(text)
        return cls(Plan(*plan), *rest)

    @property
    def sends(self) -> bool:
        return self.row < self.plan.senders


class Handled(Protocol):
    """What a receiver calls: `ready` once, then itself with each message that it has handled."""

    def ready(self) -> None: ...
    def __call__(self, body: bytes) -> None: ...


class Peer(Protocol):
    """What a module in `peers` has.

    It may also have `launch`, if roles do not run in plain processes, and `OWN_PYTHON`, if they need what
    only the peers' Python has.
    """

    @staticmethod
    def serve(plan: Plan, folder: Path) -> AbstractContextManager[str]:
        """Run the server, give its address. Skips the contestant if it cannot be had."""

    @staticmethod
    def send(role: Role, bodies: Iterator[bytes]) -> None:
        """Connect, send every body, return when all are confirmed as far as the peer does that."""

    @staticmethod
    def receive(role: Role, handled: Handled) -> None:
        """Connect, receive and acknowledge for ever."""


def peer_of(plan: Plan) -> Peer:
    """Return the module of a plan's peer."""
    peer: Peer = importlib.import_module(f"benchmarks.peers.{plan.peer}")  # type: ignore[assignment]
    return peer
