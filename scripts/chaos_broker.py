"""The zmuled of scripts/chaos: the real one, with a scribe that writes down what its core hears and does.

Run as `chaos_broker.py PIPE FAULT WORDS…`: the descriptor that is written to, the name of a fault from
chaos_planted.py or `none`, and the arguments of zmuled. Everything is written before it is done, so that
what a kill makes undone is in the journal all the same. A line is a word, the monotonic clock in nanoseconds,
and then

    born PID                    a broker begins
    holds ID ATTEMPT BODY       its store had this message; grave ID: it had this dead letter
    accepted ID BODY            the store has said that it keeps it
    delivered PID ATTEMPT ID,…  to this mule; unsent ID,…: but its connection was gone
    forgotten ID,…              they are finished
    buried ID REASON            it is a dead letter
    greeted PID                 a mule registers
    vanished PID                its connection is gone
    exited PID                  its process has ended
    silent PID NANOSECONDS      it is given up: so long ago it was heard last
    failing, works              the store cannot write, and can again
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

import chaos_planted

from zmule.cli.zmuled import main
from zmule.core.broker import Broker
from zmule.core.effects import Bury, Changes, Effect, Forget, Recovery, Save, Send
from zmule.core.events import (
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    MuleExited,
    Peer,
    PeersVanished,
    StoreFailed,
    StoreRecovered,
    Undelivered,
)
from zmule.core.frames import Deliver, Hello, Reset
from zmule.core.instant import Instant
from zmule.core.queues import Message


class Scribe:
    """Writes what one broker hears and does to a pipe.

    Args:
        pipe: its descriptor.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._batches: dict[int, list[Message]] = {}
        self._pids: dict[Peer, int] = {}
        self._heard: dict[Peer, int] = {}

    def note(self, word: str, *about: object) -> None:
        """Have a line written with the next `flush`."""
        self._lines.append(" ".join([word, str(time.monotonic_ns()), *map(str, about)]))

    def flush(self) -> None:
        """Write what was noted."""
        data = "".join(f"{line}\n" for line in self._lines).encode()
        self._lines.clear()
        while data:
            data = data[os.write(self._pipe, data) :]

    def recovered(self, recovery: Recovery) -> None:
        """Note what a broker begins with; the empty line says that no line before it was cut."""
        os.write(self._pipe, b"\n")
        self.note("born", os.getpid())
        for message in recovery.messages:
            self.note("holds", message[0], message[3], message[2])
        for dead in recovery.dead:
            self.note("grave", dead.message[0])
        self.flush()

    def hears(self, broker: Broker, event: Event) -> None:
        """Note what has happened."""
        match event:
            case FrameReceived(peer, frame):
                self._heard[peer] = time.monotonic_ns()
                if isinstance(frame, Hello) and frame.role != "client":
                    self._pids[peer] = frame.details["pid"]
                    self.note("greeted", self._pids[peer])
            case BatchSaved(batch):
                for id, _, body, *_ in self._batches.pop(batch, ()):
                    self.note("accepted", id, body)
            case BatchLost(batch):
                self._batches.pop(batch, None)
            case PeersVanished(peers):
                for peer in peers:
                    if peer in self._pids:
                        self.note("vanished", self._pids[peer])
            case Undelivered(peer, frame):
                mule = broker.roster.at(peer)
                held = mule.in_flight if mule is not None and mule.epoch == frame.epoch else ()
                for ids in [[id for id in parcel.ids if id in held] for parcel in frame.parcels]:
                    if ids:  # of others, the mule's end was heard of first: to the broker, it had them
                        self.note("unsent", listed(ids))
            case MuleExited(_, pid, _):
                self.note("exited", pid)
            case StoreFailed():
                self.note("failing")
            case StoreRecovered():
                self.note("works")

    def does(self, effects: Iterable[Effect]) -> None:
        """Note what is about to be done, and write it down."""
        for effect in effects:
            match effect:
                case Send(peer, Deliver() as frame):
                    for parcel in frame.parcels:
                        self.note("delivered", self._pids.get(peer, 0), parcel.attempt, listed(parcel.ids))
                case Send(peer, Reset("silent", _)) if peer in self._pids:
                    self.note("silent", self._pids[peer], time.monotonic_ns() - self._heard[peer])
                case Save(batch, messages):
                    self._batches[batch] = messages
                case Forget(ids):
                    self.note("forgotten", listed(ids))
                case Bury(dead):
                    self.note("buried", dead.message[0], dead.reason)
                case Changes():
                    self._changes(effect)
        if self._lines:
            self.flush()

    def _changes(self, changes: Changes) -> None:
        if changes.removed:
            self.note("forgotten", listed(changes.removed))
        for dead in changes.dead:
            self.note("buried", dead.message[0], dead.reason)


def listed(ids: Iterable[int]) -> str:
    """Return numbers as one word."""
    return ",".join(map(str, ids))


def watch(scribe: Scribe) -> None:
    """Have the scribe sit beside every broker of this process."""
    recover, handle, tick = Broker.recover, Broker.handle, Broker.tick

    def recovering(self: Broker, recovery: Recovery) -> None:
        scribe.recovered(recovery)
        recover(self, recovery)

    def handling(self: Broker, event: Event, now: Instant) -> list[Effect]:
        scribe.hears(self, event)
        effects = handle(self, event, now)
        scribe.does(effects)
        return effects

    def ticking(self: Broker, now: Instant) -> list[Effect]:
        effects = tick(self, now)
        scribe.does(effects)
        return effects

    Broker.recover, Broker.handle, Broker.tick = recovering, handling, ticking  # type: ignore[method-assign]


if __name__ == "__main__":
    pipe, fault, *words = sys.argv[1:]
    os.set_inheritable(int(pipe), False)
    chaos_planted.plant(fault)
    watch(Scribe(int(pipe)))
    sys.argv[1:] = words
    main()
