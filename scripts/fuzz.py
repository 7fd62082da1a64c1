"""Throws damaged frames at the wire module and at the broker's core, on all cores.

A dozen peers, most of them registered, send frames of every kind: half-way sensible ones, so that they get
far, with something wrong in their values, their bytes, or both. What `decode` makes of the bytes goes to a
broker. A failure is anything but `ProtocolError` out of `decode`, any exception out of the broker, a broken
invariant, or a frame or a number of the broker's that the wire or the store could not take. It is told with
the bytes of the last frame; `--seed` and `--frames` as printed play the whole way to it again.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any, NamedTuple

import msgpack

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
from zmule.core.queues import source_of
from zmule.core.services import Schedules
from zmule.core.setup import Limits, Setup
from zmule.core.wire import KINDS, decode, encode
from zmule.daemon.cronstring import integer_schedule, string_schedule
from zmule.errors import ProtocolError

CHUNK = 50_000
"""Frames that one broker gets."""

WARM = 25_000
"""Frames after which a process has all the memory that it should need."""

VALIDATE_EVERY = 500
PEERS = [b"peer%d" % number for number in range(12)]
TOKEN = b"token"
QUEUES = (
    "any",
    "mule:1",
    "mule:2",
    "mule:7",
    "farm:busy",
    "farm:none",
    "raise:17",
    "call:f:any",
    "",
    "mule:x",
)
LIMITS = Limits(
    max_message=2000,
    queue_messages=200,
    queue_bytes=100_000,
    total_messages=600,
    total_bytes=200_000,
    queue_ttl=60.0,
    max_dead=100,
)
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "any", "\0", "é" * 300, "x" * 5000, b"", b"\xff" * 16, b"y" * 5000, [],
    {}, [[]], {"": []}, [1] * 200, {str(number): number for number in range(70)},
)  # fmt: skip
SHARP = (
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff", b"\x91" * 600,
    b"\x81\xa0" * 600, b"\xd6\xff\0\0\0\0", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xa2\xed\xa0", b"\0",
)  # fmt: skip


class Task(NamedTuple):
    """One broker's share: its seed and how many frames it gets."""

    seed: int
    frames: int


class Outcome(NamedTuple):
    """What came of a task: `failure` is its story, `growth` in KiB since the process was warm."""

    frames: int
    decoded: int
    growth: int
    failure: str | None


class Known(NamedTuple):
    """What a peer has learnt from the broker's frames."""

    epoch: int = 0
    ids: tuple[int, ...] = ()
    upto: int = 0
    received: tuple[int, ...] = (0,) * len(f.SOURCES)


class Writer:
    """Writes frames of every kind, drawn at random, that are likely to get far.

    Args:
        draw: decides everything.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.known = dict.fromkeys(PEERS, Known())
        self.writers: dict[type[Any], Callable[[Known], tuple[Any, ...]]] = {
            f.Hello: lambda _: self.hello(draw.choice(PEERS)),
            f.Put: self.put,
            f.Report: self.report,
            f.Nack: lambda k: (
                self.epoch(k),
                self.ids(k),
                draw.choice((None, 0.0, 1, 1e10)),
                draw.random() < 0.3,
            ),
            f.Return: lambda k: (self.epoch(k), self.ids(k)),
            f.Settled: lambda k: (self.epoch(k),),
            f.Ping: lambda _: (draw.randrange(9), draw.random()),
            f.Bye: lambda k: (self.epoch(k), self.ids(k), self.ids(k)),
            f.Ask: lambda k: (draw.randrange(20), *self.question(k)),
            f.Welcome: lambda k: (1, bytes(16), self.epoch(k), {}),
            f.Refused: lambda _: ("error", "reason"),
            f.Confirm: lambda k: (k.upto, [(1, "queue-full", "full")]),
            f.Deliver: lambda k: (self.epoch(k), [("any", 1, [1, 2], ["a", "b"], None)]),
            f.Recall: lambda k: (self.epoch(k), 3),
            f.Pong: lambda _: (1, 2),
            f.Reset: lambda _: ("unknown", "reason"),
            f.Farewell: lambda _: (),
            f.Answer: lambda _: (1, "", draw.choice(ODD)),
            f.Broadcast: lambda _: (1, "stop"),
        }
        assert set(self.writers) == set(f.NUMBERS), "a kind of frame is missing here"
        self.kinds = list(f.NUMBERS)
        others = (f.Hello, f.Nack, f.Return, f.Settled, f.Ping, f.Bye)
        self.sent_by_peers = [f.Put, f.Report, f.Ask] * 5 + list(others)

    def frame(self, peer: Peer) -> list[Any]:
        """Return a frame's number and fields."""
        kind = self.draw.choice(self.sent_by_peers if self.draw.random() < 0.95 else self.kinds)
        return [f.NUMBERS[kind], *self.writers[kind](self.known[peer])]

    def epoch(self, known: Known) -> int:
        return known.epoch if self.draw.random() < 0.95 else self.draw.choice((0, known.epoch - 1, 2**63 - 1))

    def ids(self, known: Known) -> list[int]:
        ids = list(known.ids) or [1]
        return self.draw.sample(ids, self.draw.randint(0, len(ids))) + [99] * (self.draw.random() < 0.1)

    def hello(self, peer: Peer) -> tuple[Any, ...]:
        draw = self.draw
        role, session = draw.choice(("client", "mule", "mule", "worker")), peer.ljust(16, b".")
        if role == "client":
            return (1, role, session, {"floor": draw.choice((*[0] * 50, 5, 2**63 - 2)), "pid": 1})
        number, farms = draw.choice((0, 0, 1, 2, 7, 10**6)), draw.choice(([], ["busy"], ["idle", "new"]))
        details = {
            "number": number,
            "farms": farms,
            "program": draw.choice(("", "p.py")),
            "pid": 1,
            "token": TOKEN,
        }
        return (1, role, session, details)

    def put(self, known: Known) -> tuple[Any, ...]:
        draw = self.draw
        bodies = draw.choice((["a"], ["a", b"b", "c"], ["x" * 1990], [b"z" * 2001], [""] * 20))
        options = draw.choice(
            (None, None, None, (1.0, None, 9), (None, 1e9, 5), (None, None, 0), (0, None, 1e10))
        )
        batches = [(draw.choice(QUEUES), bodies, draw.choice((None, {"trace": "t"})), options)]
        return (
            max(1, known.upto + draw.choice((1, 1, 1, 1, 0, 2))),
            known.upto,
            batches * draw.choice((1, 1, 2)),
        )

    def report(self, known: Known) -> tuple[Any, ...]:
        draw = self.draw
        waits = [(draw.randint(1, 15), draw.choice((1, 2, 10_000))) for _ in range(draw.randrange(3))]
        received = known.received if draw.random() < 0.98 else [1] * len(f.SOURCES)
        return (self.epoch(known), self.ids(known), received, waits, draw.randrange(3))

    def question(self, known: Known) -> tuple[str, list[Any]]:
        number = self.draw.randrange(20)
        name = self.draw.choice((0, 1, 2, "a", "b", 10**9))
        thread = self.draw.randrange(3)
        questions: tuple[tuple[str, list[Any]], ...] = (
            ("status", []), ("ping", []), ("room", ["any", 5]), ("room", ["mule:1", known.upto]),
            ("nothing", []),
            ("register_signal", [number, self.draw.choice(("mule", "mules", "farm_busy", "workers"))]),
            ("unregister_signal", [number]), ("signal_registered", [number]), ("name_signal", ["n", -1]),
            ("register_function", ["f"]), ("read_messages", []), ("add_timer", [number, 1.5]),
            ("add_rb_timer", [number, 0.5, 3]), ("remove_source", ["timer", number]),
            ("add_cron", [number, -2, -1, 31, 2, 0]), ("add_cron_text", [number, "*/5 * * * *", ""]),
            ("add_cron_text", [number, "0 3 * * mon", "Europe/Rome"]),
            ("add_file_monitor", [number, "/tmp/x"]), ("lock", [name, thread, 2.0, True]),
            ("lock", [name, thread, -1.0, True]), ("lock", [name, thread, 0.0, False]),
            ("unlock", [name, thread]), ("give_up_lock", [thread, number]), ("is_locked", [name]),
            ("list_dead", ["any", 0, 10]), ("list_dead", ["", 3, 5]), ("show_dead", [number]),
            ("requeue_dead", [[number, 2], ""]), ("requeue_dead", [[], "any"]), ("requeue_dead", [[], ""]),
            ("drop_dead", [[], "any"]), ("drop_dead", [[], ""]), ("drop_dead", [[number], ""]),
            ("reload", []), ("stop", []),
        )  # fmt: skip
        return self.draw.choice(questions)

    def heard(self, peer: Peer, frame: f.Frame) -> None:
        """Learn from what the broker sends."""
        known = self.known[peer]
        if isinstance(frame, f.Welcome):
            self.known[peer] = Known(frame.epoch, upto=known.upto)
        elif isinstance(frame, f.Deliver):
            received, ids = list(known.received), list(known.ids)
            for parcel in frame.parcels:
                received[f.SOURCES.index(source_of(parcel.queue))] += len(parcel.ids)
                ids += parcel.ids
            self.known[peer] = known._replace(ids=tuple(ids[-20:]), received=tuple(received))
        elif isinstance(frame, f.Confirm):
            self.known[peer] = known._replace(upto=min(frame.upto, 2**63 - 3))


class Mutator:
    """Damages frames, as values and as bytes.

    Args:
        draw: decides everything.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.before = b"\x90"

    def values(self, frame: Any) -> Any:
        """Return the frame with something else in one place."""
        draw = self.draw
        if isinstance(frame, (list, tuple)) and frame and draw.random() < 0.9:
            items = list(frame)
            place = draw.randrange(len(items))
            chance = draw.random()
            if chance < 0.8:
                items[place] = self.values(items[place])
            elif chance < 0.9:
                del items[place]
            else:
                items.insert(place, items[draw.randrange(len(items))])
            return items
        if isinstance(frame, dict) and frame and draw.random() < 0.8:
            name = draw.choice(list(frame))
            return {**frame, name: self.values(frame[name])}
        return self.nested() if draw.random() < 0.02 else draw.choice(ODD)

    def nested(self) -> Any:
        """Return an empty list in many others."""
        value: Any = []
        for _ in range(self.draw.choice((10, 100, 500))):
            value = [value]
        return value

    def bytes(self, data: bytes) -> bytes:
        """Return the bytes with something done to them, once or a few times."""
        damaged = bytearray(data)
        for _ in range(self.draw.choice((1, 1, 1, 2, 4))):
            place = self.draw.randint(0, len(damaged))
            self.draw.choice((self._change, self._flip, self._cut, self._insert, self._splice))(
                damaged, place
            )
        self.before = data
        return bytes(damaged)

    def _change(self, damaged: bytearray, place: int) -> None:
        damaged[place : place + 1] = [self.draw.randrange(256)]

    def _flip(self, damaged: bytearray, place: int) -> None:
        if place < len(damaged):
            damaged[place] ^= 1 << self.draw.randrange(8)

    def _cut(self, damaged: bytearray, place: int) -> None:
        del damaged[place : place + self.draw.choice((1, 2, 9, 10_000))]

    def _insert(self, damaged: bytearray, place: int) -> None:
        damaged[place:place] = self.draw.choice((*SHARP, self.draw.randbytes(5)))

    def _splice(self, damaged: bytearray, place: int) -> None:
        damaged[place:] = self.before[self.draw.randint(0, len(self.before)) :]


class World:
    """A broker with peers that send it rubbish, and a store that at times cannot write.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.writer, self.mutator = Writer(self.draw), Mutator(self.draw)
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
        frame: Any = self.writer.frame(peer)
        if self.broker.roster.at(peer) is None and self.broker.senders.at(peer) is None and chance < 0.55:
            frame = [f.NUMBERS[f.Hello], *self.writer.hello(peer)]
        if 0.45 < chance < 0.75:
            frame = self.mutator.values(frame)
        data: bytes = msgpack.packb(frame)
        return self.mutator.bytes(data) if chance > 0.65 else data

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
                self.writer.heard(effect.peer, decode(encode(effect.frame)))
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


_warm: int | None = None
_played = 0


def play(task: Task) -> Outcome:
    """Give a new broker its share, up to the first failure."""
    global _warm, _played
    world = World(task.seed)
    for number in range(1, task.frames + 1):
        try:
            world.turn(number)
        except Exception as error:
            return Outcome(number, world.decoded, 0, story(task.seed, number, world.last, error))
        _played += 1
        if _played == WARM:
            _warm = peak()
    growth = 0 if _warm is None else peak() - _warm
    return Outcome(task.frames, world.decoded, growth, None)


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def story(seed: int, number: int, data: bytes, error: Exception) -> str:
    """Tell of a failure."""
    import traceback

    trace = "".join(traceback.format_exception(error))
    again = f"scripts/fuzz --seed {seed} --frames {number} --jobs 1"
    return f"frame {number} of seed {seed}; again by: {again}\nlast frame: {data.hex()}\n{trace}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the arguments ask for; return 1 if anything failed."""
    options = parser().parse_args(arguments)
    if options.atheris:
        return coverage_guided()
    begun, frames, decoded, growth = time.monotonic(), 0, 0, 0
    shares = range(0, options.frames, CHUNK)
    tasks = [Task(options.seed + at, min(CHUNK, options.frames - place)) for at, place in enumerate(shares)]
    failure = None
    with get_context("spawn").Pool(options.jobs) as pool:
        for outcome in pool.imap_unordered(play, tasks):
            frames, decoded = frames + outcome.frames, decoded + outcome.decoded
            growth, failure = max(growth, outcome.growth), outcome.failure
            if failure is not None:
                break
    seconds = time.monotonic() - begun
    print(
        f"{frames} frames, {decoded} of them well-formed, in {seconds:.1f} s: {frames / seconds:.0f} a second"
    )
    print(f"peak memory of a process: {growth} KiB more than after {WARM} frames")
    print(failure or "nothing but ProtocolError, and every invariant held")
    return 1 if failure else 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--frames", type=int, default=1_000_000, metavar="N", help="how many frames, default %(default)s")
    add("--seed", type=int, default=0, metavar="K", help="the first broker's seed, default %(default)s")
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes, default one for each core")
    add(
        "--atheris",
        action="store_true",
        help="fuzz decode by coverage until stopped, if atheris is installed",
    )
    return parser


def coverage_guided() -> int:
    """Hand `decode` to atheris, which goes on until it finds something or is stopped."""
    try:
        import atheris  # type: ignore[import-untyped]
    except ImportError:
        print("scripts/fuzz: atheris is not installed; try without --atheris", file=sys.stderr)
        return 1
    atheris.instrument_func(decode)
    atheris.Setup(sys.argv[:1], only_protocol_error)
    atheris.Fuzz()
    return 0


def only_protocol_error(data: bytes) -> None:
    """Decode; what comes, if anything comes, must survive the wire in its turn."""
    try:
        frame = decode(data)
    except ProtocolError:
        return
    assert type(frame) in KINDS.values()
    encode(frame)


if __name__ == "__main__":
    sys.exit(main())
