"""What happened: the inputs of `Broker.handle`, named in the past tense.

They are `NamedTuple`s, not dataclasses: as small and immutable, built four times as fast, and their
import costs a command that starts in 60 ms nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from zmule.core.frames import Deliver, Frame

Peer = bytes
"""Who is at the other end of a connection: libzmq's own routing id."""


class FrameReceived(NamedTuple):
    """A peer sent a well-formed frame. `owner`: it is a greeting, and the peer of the broker's own user."""

    peer: Peer
    frame: Frame
    owner: bool = False


class FrameRejected(NamedTuple):
    """A peer sent bytes that are no frame of the protocol."""

    peer: Peer
    reason: str


class StrangerSpoke(NamedTuple):
    """A peer that has no session sent something long, which was not looked at."""

    peer: Peer


class MemoryShort(NamedTuple):
    """The process has more memory, in bytes, than it may have."""

    used: int


class MemoryFine(NamedTuple):
    """It has less again."""


class Stalled(NamedTuple):
    """For so many seconds nobody could be heard, whatever he said."""

    seconds: float


class PeersVanished(NamedTuple):
    """Connections are gone: seen by the socket monitor, or a send found nobody there.

    All that are known to be gone come together, so that none of them is given what another had.
    """

    peers: tuple[Peer, ...]


class Undelivered(NamedTuple):
    """A delivery could not be sent, since its mule's connection was gone already."""

    peer: Peer
    frame: Deliver


class BatchSaved(NamedTuple):
    """The store holds everything of this `Save`, and of all before it."""

    batch: int


class BatchLost(NamedTuple):
    """The store could not write this `Save`; nothing of it is kept."""

    batch: int
    reason: str


class StoreFailed(NamedTuple):
    """The store cannot write at present: what it is given is lost, until `StoreRecovered`."""

    reason: str


class StoreRecovered(NamedTuple):
    """The store writes again."""


class BackupEnded(NamedTuple):
    """The copy that a peer has asked for is at `path`, or there is none and `error` says why."""

    peer: Peer
    request: int
    path: str
    error: str | None


class MuleSpawned(NamedTuple):
    """The supervisor started the process of a configured mule.

    `token` is the secret that the process, and nobody else, registers with.
    """

    number: int
    pid: int
    token: bytes


class MuleExited(NamedTuple):
    """The process of a configured mule ended.

    `status` is its exit code, or minus the signal that killed it; `how` says so in words, and `then` what
    becomes of the mule, if anything.
    """

    number: int
    pid: int
    status: int
    how: str = "ended"
    then: str = ""


class MuleGivenUp(NamedTuple):
    """A mule keeps crashing: the supervisor will try to start it again, but not soon."""

    number: int
    reason: str


class PathWatched(NamedTuple):
    """A path is being watched."""

    path: str


class PathRefused(NamedTuple):
    """A path cannot be watched."""

    path: str
    reason: str


class PathChanged(NamedTuple):
    """Something at a watched path has changed."""

    path: str


class StopRequested(NamedTuple):
    """The operator wants the broker to end: no new deliveries from here on."""


Event = (
    FrameReceived
    | BackupEnded
    | FrameRejected
    | StrangerSpoke
    | PeersVanished
    | Undelivered
    | BatchSaved
    | BatchLost
    | StoreFailed
    | StoreRecovered
    | MuleSpawned
    | MuleExited
    | MuleGivenUp
    | PathWatched
    | PathRefused
    | PathChanged
    | MemoryShort
    | MemoryFine
    | Stalled
    | StopRequested
)
